"""Two engines on one partition by turns, killed between their writes: whoever goes on has what the other has done."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import worker.partition
from dlq.collect import dead_letters
from dlq.publishers import open_publisher
from tests import fickle
from tests.property.half_written import (
    FAULTS,
    HANDLERS,
    UNLUCKY,
    WITH_INFINITE,
    Fault,
    Killed,
    World,
    logs,
    opened,
    run,
    windows_of_state,
    windows_of_store,
)  # fmt: skip
from tests.reference import Record, raw_batch
from tests.unit.worker.pieces import TP, record
from tidegate.clock import SystemClock
from tidegate.errors import SinkRecordError
from tidegate.record import Stage, record_id
from tidegate.rowkeys import aggregation_prefix
from tidegate.stages.batch import Answers, Reason, Rejection
from tidegate.stages.pipeline import StagePipeline
from tidegate.store.base import Store, StoreBatch
from tidegate.store.seen import seen_table
from worker import keys
from worker.rowcodec import RowCodec
from worker.source_partition import SourcePartition
from worker.statedb import PartitionDB
from worker.windows import partial_columns

pytestmark = pytest.mark.slow
HORIZON = 20_000  # ms, of asking_plan's dedupe


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with patch.multiple(worker.partition, _OUTAGE_WAIT=(0.0, 0.0), _FENCE_WAIT=0.0):
        yield


class Memory:
    """Dedupe's memory in the store, as Spark asks it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, keys: Sequence[bytes]) -> list[int | None]:
        return self._store.seen(TP, keys)


def other_engine(world: World, records: Sequence[Record], count: int) -> None:
    """The next records as a run on Spark takes them: dead letters first, then one transaction of the store."""
    row = world.store.claim([TP], "spark:1")[TP]
    if not (mine := [one for one in records if one.offset > row.state.upto][:count]):
        return
    stages, publisher = StagePipeline(world.plan, world.handlers), open_publisher(world.plan)
    known: Answers | None = None
    while True:
        result = stages.run(raw_batch(TP, mine), row.state, Memory(world.store), known)
        batch = StoreBatch(
            TP, row.epoch, row.state.upto, result.state, result.deltas, result.late_windows,
            seen=seen_table(result.seen), complete=True,
        )  # fmt: skip
        try:
            world.store.write(batch)
            break
        except SinkRecordError as error:
            plan = next(a for a in world.plan.aggregations if a.name == error.aggregation)
            refused = {
                offset: Rejection(offset, Stage.SINK, (Reason("SinkRefused", str(error), field=plan.name),))
                for offset in stages.offsets_of(result, plan.name, error.rows)
            }
            known = result.answers_with(refused)
    # One after the other as Spark does it, but for what it writes again under the same ids when the store refuses a row.
    for row_ in publisher.rows(dead_letters(result, world.plan, SystemClock(), context={}), TP, 1):
        world.log.setdefault((row_.topic, row_.partition), []).append((row_.key, row_.value, row_.headers))
    stages.close()


def check(world: World, owner: SourcePartition, records: Sequence[Record]) -> None:
    """State, database, dead letters and the newest results tell one story."""
    [row] = world.store.partitions()
    ours, theirs = owner._state, row.state
    assert (ours.upto, ours.ledger, ours.high_water) == (theirs.upto, theirs.ledger, theirs.high_water)
    assert (theirs.ledger.read, theirs.ledger.balanced, row.seen_upto) == (len(records), True, theirs.upto)
    stored = windows_of_store(world.store, TP, "totals")
    assert windows_of_state(owner, "totals") == stored
    letters = [dict(headers)["tidegate.dlq.id"] for _, _, headers in world.log.get(("p.dlq", 0), [])]
    assert len(letters) == len(set(letters)) == theirs.ledger.dead_lettered
    assert owner.db is not None
    assert rows_of_state(owner.db, keys.LATE, 4) == {
        (crc(one["aggregation"]), one["window_end"]): one["missing"] for one in world.store.late(TP).to_pylist()
    }
    seen = {one["key"]: one["at"] for chunk in world.store.remembered(TP) for one in chunk.to_pylist()}
    kept = {key[1:]: keys.unpack_int(value) for key, value in owner.db.scan(keys.SEEN, keys.SEEN + b"\xff" * 99)}
    assert {key: at for key, at in kept.items() if at >= (theirs.dedupe_clock or 0) - HORIZON} == seen
    assert newest(world, owner) == sorted((one["records"], one["n__n"], one["total__sum"]) for one in stored)


def rows_of_state(db: PartitionDB, table: bytes, prefix: int) -> dict[tuple[bytes, int], int]:
    """(what comes before the window's end in the key, that end) → number."""
    found = {}
    for key, value in db.scan(table, table + b"\xff" * 99):
        end = int.from_bytes(key[1 + prefix : 9 + prefix], "big") - (1 << 63)
        found[key[1 : 1 + prefix], end] = keys.unpack_int(value)
    return found


def crc(name: str) -> bytes:
    return aggregation_prefix(keys.LATE, name)[1:]


def newest(world: World, owner: SourcePartition) -> list[tuple[Any, ...]]:
    """Records, count and sum of the newest result of each window and group on Kafka; where another agent adds partials up,
    of the newest partial of each."""
    assert owner._stages is not None
    found: dict[Any, tuple[Any, ...]] = {}
    if owner._stages.emitter.is_merged("totals"):
        codec = RowCodec(partial_columns(world.plan.aggregations[0]))
        places = [rows for (topic, _), rows in world.log.items() if topic == "p..partials"]
        rows = {key: value for place in places for key, value, _ in place if key[:1] != b"\x00"}
        read = codec.decode(list(rows.values())).to_pylist()
        return sorted((one["records"], one["n__n"], one["total__sum"]) for one in read)
    revisions: dict[Any, int] = {}
    for key, value, _ in world.log.get(("p.totals", 0), []):
        one = json.loads(value)
        assert revisions.get(key, 0) <= one["revision"]
        revisions[key] = one["revision"]
        found[key] = one["records"], one["values"]["n"], one["values"]["total"]
    return sorted(found.values())


@settings(max_examples=10)
@given(
    handler=st.sampled_from(HANDLERS),
    log=logs(),
    turns=st.lists(st.tuples(st.booleans(), st.integers(1, 5)), min_size=1, max_size=6),
    script=st.lists(st.sampled_from(FAULTS), max_size=12),
    seed=st.integers(0, 2**16),
)
def test_engines_by_turns(
    handler: dict[str, Any] | None,
    log: list[Record],
    turns: list[tuple[bool, int]],
    script: list[Fault],
    seed: int,
) -> None:
    """A worker that is killed before and after each of its writes, and another engine in between, with handlers that answer
    otherwise at each call, duplicates and rows that the database refuses: state and database are one, each dead letter is
    there once, the newest results on Kafka are the database's, and nobody is asked again for what the database has."""
    fickle.start(seed, WITH_INFINITE)
    with tempfile.TemporaryDirectory() as directory, opened(Path(directory), handler, script) as world:
        for by_worker, count in turns:
            asked, [had] = len(fickle.ASKED), world.store.partitions() or [None]
            if by_worker:
                upto = 0 if had is None else had.state.upto + 1
                with contextlib.suppress(Killed):
                    run(world, log[: upto + count], [2, 1], lives=1)
            else:
                other_engine(world, log, count)
            if had is not None:
                done = {record_id(TP, offset) for offset in range(had.state.upto + 1)}
                assert not done.intersection(fickle.ASKED[asked:])
        check(world, run(world, log, [3]), log)


def test_what_a_killed_worker_owed_to_kafka_is_made_up_for_behind_the_other_engine(tmp_path: Path) -> None:
    """Killed after the database had its batch: once the other engine has gone on, the worker repeats exactly that batch for
    its dead letters, with the answers that were kept, and takes the rest from the database."""
    fickle.start(3)
    log = [record(offset, offset * 1000, amount=UNLUCKY if offset == 1 else 1, ratio=0.5) for offset in range(12)]
    with opened(tmp_path, HANDLERS[0], ["none", "kill before"]) as world:
        with pytest.raises(Killed):
            run(world, log[:4], [4], lives=1)
        other_engine(world, log, 6)
        asked = len(fickle.ASKED)
        owner = run(world, log, [8, 4])
        check(world, owner, log)
        assert fickle.ASKED[asked:] == [record_id(TP, offset) for offset in (10, 11)]
