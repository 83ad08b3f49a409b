"""What an executor does with a partition's share of a micro-batch; without Spark, which only calls it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
import structlog

from batch import wire
from batch.stage import Refused, StageTask
from tests.reference import Record
from tests.unit.worker.pieces import TP, plan_of, record
from tidegate.errors import PipelineAborted
from tidegate.record import TopicPartition
from tidegate.stages.batch import HEADERS_TYPE, PartitionState
from tidegate.stages.plan import Plan

SINKS = [{"type": "postgres", "url": "postgresql://nowhere.invalid/x"}]  # nothing here asks the database
SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.int64()),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", HEADERS_TYPE),
    ]
)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """An executor sets up the logging of its process, which here is that of all tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


START = 1_700_000_000_000
# In order of offset; one is malformed, one late, the last opens another window.
RECORDS = [
    record(3, START, "a"),
    record(5, START + 25_000, "b", amount=7),
    Record(6, START, b"{", (), b"a"),
    record(8, START + 100, "a"),
    record(9, START + 26_000, "b", amount=2),
    record(12, START + 41_000, "c"),
]


def chunk(records: Sequence[Record], tp: TopicPartition = TP) -> pa.RecordBatch:
    rows = [
        {"topic": tp.topic, "partition": tp.partition, "headers": None, **{n: getattr(r, n) for n in names}}
        for r in records
        for names in [("offset", "timestamp", "key", "value")]
    ]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def run(
    plan: Plan, *chunks: Sequence[Record], refused: Mapping[Any, Any] | None = None, upto: int = -1
) -> wire.Outcome:
    task = StageTask(plan, {TP: PartitionState(upto)}, {"p.dlq": 1, "p.late": 1}, refused or {})
    batches: Iterator[pa.RecordBatch] = (chunk(records) for records in chunks)
    (outcome,) = wire.receive(pa.Table.from_batches(list(task(batches))))
    return outcome


def totals(outcome: wire.Outcome) -> list[tuple[Any, ...]]:
    table = pa.concat_tables(outcome.deltas["totals"])
    return sorted(tuple(row.values()) for row in table.to_pylist())


def test_chunks_are_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the records are cut into chunks: the same state, partials, dead letters and late records."""
    plan = plan_of(sinks=SINKS)
    whole = run(plan, RECORDS)
    assert whole.applied.state.ledger.read == 6
    assert (whole.applied.state.ledger.dead_lettered, whole.applied.state.ledger.late) == (1, 1)
    for parts in ([RECORDS[:1], RECORDS[1:]], [[], *([r] for r in RECORDS)], [RECORDS[:4], [], RECORDS[4:]]):
        outcome = run(plan, *parts)
        assert outcome.applied.state == whole.applied.state
        assert totals(outcome) == totals(whole)
        ids = [[(row.topic, row.value) for w in each.written for row in w.rows] for each in (outcome, whole)]
        assert sorted(ids[0]) == sorted(ids[1])
        assert sum(written.dead for written in outcome.written) == 1


def test_what_the_store_has_is_cut() -> None:
    """Records up to the state's offset are left out, wherever a chunk begins; nothing new gives nothing to write."""
    plan = plan_of(sinks=SINKS)
    assert run(plan, RECORDS[:2], RECORDS[2:], upto=8).applied.state.ledger.read == 2
    nothing = run(plan, RECORDS, upto=12)
    assert (nothing.applied.state, nothing.written, nothing.deltas) == (nothing.applied.before, [], {})


def test_partials_that_the_store_refuses() -> None:
    """Exactly the records behind them are dead-lettered, in whichever chunks they are; the state is the same but for
    the ledger."""
    plan = plan_of(sinks=SINKS)
    before = run(plan, RECORDS[:3], RECORDS[3:])
    partials = pa.concat_tables(before.deltas["totals"])
    wanted = partials.filter(pa.compute.equal(partials["k"], "b"))
    after = run(plan, RECORDS[:3], RECORDS[3:], refused={TP: [Refused("totals", wanted, "no such text")]})
    assert totals(after) == [row for row in totals(before) if "b" not in row]
    assert after.applied.state.ledger.dead_lettered == before.applied.state.ledger.dead_lettered + 2
    assert after.applied.state.high_water == before.applied.state.high_water
    headers = [dict(row.headers) for written in after.written for row in written.rows if row.topic == "p.dlq"]
    refused = [h for h in headers if h["tidegate.dlq.stage"] == b"sink"]
    assert [h["tidegate.dlq.origin.offset"] for h in refused] == [b"5", b"9"]


def test_an_error_of_ours_reaches_the_driver() -> None:
    """It is a row like any other, and the rest of the input is read, for which Spark waits."""
    task = StageTask(
        plan_of(sinks=SINKS, errorHandling={"deadLetterQueue": {"enabled": False}}), {TP: PartitionState()}, {}
    )
    read = []

    def chunks() -> Iterator[pa.RecordBatch]:
        for start in range(0, 6, 2):
            read.append(start)
            yield chunk(RECORDS[start : start + 2])

    with pytest.raises(PipelineAborted, match="flights-0-6"):
        wire.receive(pa.Table.from_batches(list(task(chunks()))))
    assert read == [0, 2, 4]


OTHER = TopicPartition("flights", 1)


@pytest.mark.parametrize("chunks", [[chunk(RECORDS[::-1])], [chunk(RECORDS[:1]), chunk(RECORDS[1:], OTHER)]])
def test_what_spark_must_not_give(chunks: list[pa.RecordBatch]) -> None:
    """Several partitions in a task, or records out of order, would make lateness depend on the engine: a bug, said loudly."""
    together = pa.Table.from_batches(chunks).combine_chunks().to_batches()
    task = StageTask(plan_of(sinks=SINKS), {TP: PartitionState(), OTHER: PartitionState()}, {})
    with pytest.raises(AssertionError, match="several partitions, or out of order"):
        list(task(iter(together)))
