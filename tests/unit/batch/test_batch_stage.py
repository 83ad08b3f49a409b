"""What an executor does with a partition's share of a micro-batch; without Spark, which only calls it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
import structlog

from batch import fetch, stage, wire
from batch.fetch import Stretch
from batch.stage import Refused, StageTask
from tests.reference import Record, raw_batch
from tests.unit.worker.pieces import TP, plan_of, record
from tidegate.errors import BrokerUnavailable
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import Plan

SINKS = [{"type": "postgres", "url": "postgresql://nowhere.invalid/x"}]  # nothing here asks the database


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


def run(
    plan: Plan, *chunks: Sequence[Record], refused: Mapping[Any, Any] | None = None, upto: int = -1
) -> wire.Outcome:
    task = StageTask(plan, [], {TP: PartitionState(upto)}, {"p.dlq": 1, "p.late": 1}, refused or {})
    batches = [raw_batch(TP, records) for records in chunks]
    (outcome,) = wire.receive(pa.Table.from_batches(list(task.through(TP, batches))))
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


def test_an_error_of_ours_reaches_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a row like any other, so that the driver raises what was raised."""
    plan = plan_of(sinks=SINKS, kafka={"bootstrapServers": "127.0.0.1:1"})
    task = StageTask(plan, [[Stretch(TP, 0, 5)]], {TP: PartitionState()}, {})
    number = pa.RecordBatch.from_pydict({"id": [0]})
    monkeypatch.setattr(fetch, "_SILENCE", 0.1)
    monkeypatch.setattr(fetch, "_MEETING", 0.01)
    sent = pa.Table.from_batches(list(task(iter([number]))))
    with pytest.raises(BrokerUnavailable, match="gave nothing"):
        wire.receive(sent)


def test_an_executor_is_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its tasks need is there afterwards, whether a broker answers or not; one row comes out, whatever it was given."""
    monkeypatch.setattr(fetch, "_MEETING", 0.01)
    task = StageTask(plan_of(sinks=SINKS, pipelineId="warm"), [], {}, {})
    numbers = [pa.RecordBatch.from_pydict({"id": [0, 1]}), pa.RecordBatch.from_pydict({"id": [2]})]
    assert [batch.num_rows for batch in task.warm_up(iter(numbers))] == [1]
    made = stage._tools.cache_info().misses
    assert stage._tools(pickle.dumps(task.plan)).plan.pipeline.pipeline_id == "warm"
    assert stage._tools.cache_info().misses == made
