"""A source partition of the worker over a real local state and SQLite, with a log in memory for Kafka, and faults where
the script wants them: before or after either write, as an outage or as a kill."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pyarrow as pa
from hypothesis import strategies as st

from tests import fickle
from tests.reference import Record
from tests.unit.worker.pieces import COUNTS, TP, plan_of, record
from tidegate.clock import SystemClock
from tidegate.config.sinks import SqliteSink
from tidegate.errors import BrokerUnavailable, StoreUnavailable
from tidegate.record import TopicPartition, record_id
from tidegate.resilience.guard import Guard
from tidegate.resilience.registry import Registry
from tidegate.stages.batch import PartitionState
from tidegate.stages.handle import HandlerChain
from tidegate.stages.plan import Plan
from tidegate.store import open_store
from tidegate.store.answers import decode_answers
from tidegate.store.audit import parse_id
from tidegate.store.base import PartitionRow, Store, StoreBatch
from worker.observe import Observer
from worker.records import Rows
from worker.source_partition import SourcePartition
from worker.statedb import PartitionDB
from worker.windows import BEGINNING, FOREVER

Fault = Literal["none", "outage before", "outage after", "kill before", "kill after"]
FAULTS: tuple[Fault, ...] = ("none", "none", "outage before", "outage after", "kill before", "kill after")
UNLUCKY = 13  # an amount that SQLite refuses, since there is no infinity in it
SCHEMA = [
    {"name": "id", "type": "string"},
    {"name": "amount", "type": "bigint"},
    {"name": "ratio", "type": "double"},
    {"name": "seen", "type": "timestamp", "unit": "ms"},
]


HANDLERS: list[dict[str, Any] | None] = [
    {"call": "per_record"},
    {"call": "per_record_async", "concurrency": 3},
    {"call": "per_batch", "mode": "batch"},
    None,
]
WITH_INFINITE = (*fickle.USUAL, "infinite")  # SQLite refuses it: the sink has a say too


class Killed(BaseException):
    """The process ends here."""


def asking_plan(path: Path, handler: dict[str, Any] | None, **settings: Any) -> Plan:
    """Duplicates left out, a handler that is fickle, windows that are never forgotten, results in SQLite."""
    return plan_of(
        schema=SCHEMA,
        eventTime={"column": "seen", "delay": "1 second", "allowedLateness": "5 seconds", "retention": "1 day"},
        dedupe={"key": "id", "horizon": "20 seconds"},
        handlers=[] if handler is None else [{**handler, "call": f"{fickle.__name__}:{handler['call']}"}],
        aggregations=[
            {
                "name": "totals",
                "window": {"size": "10 seconds"},
                "groupBy": ["k"],
                "measures": {
                    "n": "count",
                    "total": {"type": "sum", "of": "amount"},
                    "most": {
                        "type": "max",
                        "of": f"CASE WHEN amount = {UNLUCKY} THEN CAST('infinity' AS DOUBLE) ELSE ratio END",
                    },
                },
            }
        ],
        sinks=[{"type": "kafka"}, {"type": "sqlite", "path": str(path)}],
        errorHandling={"retry": {"maxAttempts": 1}, "circuitBreaker": {"failureThreshold": 1000}},
        **settings,
    )


@dataclass
class World:
    """What outlives a worker: the log, the state on disk, the database; and the script of what goes wrong."""

    plan: Plan
    directory: Path
    script: list[Fault]
    held: PartitionDB | None = None
    log: dict[tuple[str, int], list[tuple[Any, Any, Any]]] = field(default_factory=dict)
    said: dict[int, StoreBatch] = field(default_factory=dict)  # upto → what the database took
    known: dict[int, int] = field(default_factory=dict)  # upto → how often handlers had been called by then

    def __post_init__(self) -> None:
        self.executor = ThreadPoolExecutor(1)
        self.handlers = HandlerChain(self.plan.pipeline, self.plan.decoded)
        sink = next(sink for sink in self.plan.pipeline.sinks if isinstance(sink, SqliteSink))
        self.store: Store = open_store(self.plan, sink)
        self.store.prepare()

    def close(self) -> None:
        self.release()
        self.store.close()
        self.handlers.close()
        self.executor.shutdown()

    def release(self) -> None:
        """A process that is gone no longer holds the state on disk."""
        if self.held is not None:
            self.held.close()
        self.held = None

    def lose_state(self) -> None:
        """The topics and the state on disk are gone; the database is not."""
        self.release()
        self.log.clear()
        shutil.rmtree(self.directory / "state")

    def around(self, write: Any, outage: Exception) -> Any:
        """Do it, or do not, and say what the script says."""
        fault = self.script.pop(0) if self.script else "none"
        if fault.endswith("before"):
            raise Killed if fault.startswith("kill") else outage
        done = write()
        if fault.endswith("after"):
            raise Killed if fault.startswith("kill") else outage
        return done

    # The database, as the worker sees it.

    def claim(self, tps: Sequence[TopicPartition], owner: str) -> dict[TopicPartition, PartitionRow]:
        return self.store.claim(tps, owner)

    def write(self, batch: StoreBatch) -> None:
        def write() -> None:
            self.store.write(batch)
            self.said[batch.state.upto], self.known[batch.state.upto] = batch, len(fickle.ASKED)

        self.around(write, StoreUnavailable("the database is away"))

    def windows(self, *given: Any, **options: Any) -> Iterable[pa.Table]:
        return self.store.windows(*given, **options)

    def late(self, tp: TopicPartition) -> pa.Table:
        return self.store.late(tp)

    def remembered(self, tp: TopicPartition) -> Iterable[pa.Table]:
        return self.store.remembered(tp)

    # Kafka, as the worker sees it.

    async def commit(self, rows: Sequence[Rows]) -> dict[tuple[str, int], int]:
        def write() -> dict[tuple[str, int], int]:
            for one in rows:
                self.log.setdefault((one.topic, one.partition), []).extend((k, v, h) for k, v, h, _ in one)
            return {place: len(written) - 1 for place, written in self.log.items()}

        done: dict[tuple[str, int], int] = self.around(write, BrokerUnavailable("Kafka is away"))
        return done

    async def stop(self) -> None:
        """A producer that ends."""


class Worker(SourcePartition):
    """One life of the partition's owner."""

    def __init__(self, world: World) -> None:
        plan = world.plan
        consumer = SimpleNamespace(pause_partitions_for=lambda *_: None, resume_partitions_for=lambda *_: None)
        context = SimpleNamespace(
            plan=plan,
            handlers=world.handlers,
            clock=SystemClock(),
            owner="test",
            executor=world.executor,
            stages=world.executor,
            store=world,
            store_guard=Guard("store", plan.pipeline.error_handling, registry=Registry()),
            observer=Observer(plan),
            consumer=consumer,
            partition_counts=dict(COUNTS),
        )
        super().__init__(TP, cast(Any, context))
        self.world = world

    @property
    def state(self) -> PartitionState:
        return self._state

    async def _open(self) -> None:
        self.world.release()
        self.world.held = db = PartitionDB(self.world.directory / "state")
        log, known = self.world.log.get(self.changelog, []), db.changelog_offset
        if start := log[0 if known is None else known + 1 :]:
            db.apply([key for key, _, _ in start], [value for _, value, _ in start], len(log) - 1)
        self.db, self.producer = db, cast(Any, self.world)
        self.upto = await self._in_thread(lambda: self._load(db))

    def _close_state(self, db: PartitionDB) -> None:
        super()._close_state(db)
        self.world.held = None


def run(world: World, records: Sequence[Record], sizes: Sequence[int], lives: int = 1000) -> Worker:
    """Take all records through, however often the worker is killed on the way (raises Killed when it has no life left).
    The last worker's state is left open, for `check`."""
    left = list(sizes)

    async def live(worker: Worker) -> None:
        await worker._until_done(worker._ensure_open)
        while rest := [record for record in records if record.offset > worker.upto]:
            batch = rest[: left.pop(0) if left else len(rest)]
            await worker._until_done(lambda: worker._work([as_aiokafka(record) for record in batch]))  # noqa: B023  # awaited before the next batch

    while True:
        worker, lives = Worker(world), lives - 1
        try:
            asyncio.run(live(worker))
            return worker
        except Killed:
            if not lives:
                raise


def as_aiokafka(record: Record) -> Any:
    return SimpleNamespace(
        offset=record.offset, timestamp=record.timestamp, key=record.key, value=record.value, headers=record.headers
    )


def check(world: World, worker: Worker, records: Sequence[Record]) -> None:
    """State, database and topics tell one story, and it is that of the answers which the database took."""
    [row] = world.store.partitions()
    ours, theirs = worker._state, row.state
    assert (ours.upto, ours.ledger, ours.high_water) == (theirs.upto, theirs.ledger, theirs.high_water)
    assert (theirs.ledger.read, theirs.ledger.balanced) == (len(records), True)
    assert windows_of_state(worker, "totals") == windows_of_store(world.store, worker.tp, "totals")
    letters = [dict(headers)["tidegate.dlq.id"] for _, _, headers in world.log.get(("p.dlq", 0), [])]
    assert len(letters) == len(set(letters)) == theirs.ledger.dead_lettered
    for upto, calls in world.known.items():
        assert not {record_id(TP, offset) for offset in range(upto + 1)}.intersection(fickle.ASKED[calls:])
    answers = [decode_answers(batch.answers, TP) for batch in world.said.values() if batch.answers is not None]
    refused = {(TP, offset) for one in answers for offset in one.rejected}
    assert refused <= {parse_id(letter.decode()) for letter in letters}
    if world.plan.pipeline.handlers:
        assert theirs.ledger.filtered == sum(len(one.filtered) for one in answers)
        assert theirs.ledger.accepted == sum(len(one.rows) for one in answers if one.rows is not None)


def windows_of_state(worker: SourcePartition, aggregation: str) -> list[dict[str, Any]]:
    """Every window and group as the worker's own state has them."""
    assert worker._stages is not None
    assert worker.db is not None
    return _rows(worker._stages.windows[aggregation].ending(worker.db, BEGINNING, FOREVER).table)


def windows_of_store(store: Store, tp: TopicPartition, aggregation: str) -> list[dict[str, Any]]:
    """The same as the database has them."""
    return [row for chunk in store.windows(tp, aggregation, open_after=0) for row in _rows(chunk)]


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """In one order; without revisions, which count writes, and sketches, whose bytes may differ for the same values."""
    beside = [name for name in table.column_names if name == "revision" or name.endswith("__sketch")]
    rows: list[dict[str, Any]] = table.drop_columns(beside).to_pylist()
    return sorted(rows, key=lambda row: str(sorted(row.items())))


@contextmanager
def opened(directory: Path, handler: dict[str, Any] | None, script: list[Fault]) -> Iterator[World]:
    world = World(asking_plan(directory / "results.db", handler), directory, list(script))
    try:
        yield world
    finally:
        world.close()


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Records in and out of order, some of them replays, duplicates, or with an amount that the database refuses."""
    made = []
    for offset, seen in enumerate(draw(st.lists(st.integers(0, 40_000), min_size=1, max_size=14))):
        fields = {"id": draw(st.sampled_from([None, None, "x", "y"])), "amount": draw(st.sampled_from([1, 2, UNLUCKY]))}
        made.append(
            record(offset, seen, draw(st.sampled_from("ab")), replay=draw(st.integers(0, 5)) == 0, ratio=0.5, **fields)
        )
    return made
