"""One source partition's batch, from records to effects. Nothing here writes: worker/commit.py does."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dlq.collect import dead_letters
from dlq.late import Late, late_records
from dlq.letter import Letter
from dlq.policy import Failures, FloodGuard
from dlq.publishers import open_publisher
from dlq.retry.rows import retry_rows
from tidegate.clock import Clock
from tidegate.config.topics import late_topic, watermarks_topic
from tidegate.record import OutRow, TopicPartition
from tidegate.rowkeys import aggregation_prefix, order_preserving
from tidegate.stages.batch import Answers, BatchResult, NothingSeen, PartitionState, RawBatch
from tidegate.stages.handle import HandlerChain
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.stages.sql import connect
from tidegate.store.rows import decode_state, encode_state
from worker import keys
from worker.effects import Effects
from worker.emit import Emitter
from worker.records import by_partition
from worker.seen import SeenTable
from worker.statedb import PartitionDB
from worker.watermarks import NEVER, SourceWatermark, encode_watermark, watermark_key
from worker.windows import BEGINNING, WindowRows, WindowTable


@dataclass(slots=True)
class Step:
    """One batch, or one closing of windows, ready to be committed."""

    state: PartitionState
    effects: Effects
    closed_upto: int
    result: BatchResult | None = None
    dlq_seconds: float = 0.0  # spent on the letters and the rows of dead letters and late records
    dead: list[Letter] = field(default_factory=list)
    windows_closed: dict[str, int] = field(default_factory=dict)
    open_windows: dict[str, frozenset[int]] = field(
        default_factory=dict
    )  # aggregation → ends (ms) of what is still open


class SourceStages:
    """The stages of one source partition over its local state. Used by one thread at a time.

    `handlers` are shared by all partitions of a worker, whose records in flight are counted together.
    """

    def __init__(
        self,
        plan: Plan,
        tp: TopicPartition,
        db: PartitionDB,
        partition_counts: dict[str, int],
        clock: Clock,
        handlers: HandlerChain,
    ) -> None:
        self.plan, self.tp, self.db = plan, tp, db
        self._clock = clock
        self._counts = partition_counts
        self._connection = connect()
        self._stages = StagePipeline(plan, handlers)
        self._publisher = open_publisher(plan, packed=True)
        self._flood = FloodGuard(plan.pipeline.error_handling.flood_guard)
        self.windows = {a.name: WindowTable(a, self._connection) for a in plan.aggregations}
        self.emitter = Emitter(plan, tp, db, self.windows, self._connection, partition_counts)
        self._seen = SeenTable(db) if plan.pipeline.dedupe else NothingSeen()
        self._context = {"engine": "worker", "host": socket.gethostname()}
        self._delay = plan.pipeline.event_time.delay if plan.pipeline.event_time else 0

    def close(self) -> None:
        """Give back the connections."""
        self._stages.close()
        self._connection.close()

    @property
    def layouts(self) -> dict[str, bytes]:
        """Aggregation → digest of how its rows are laid out."""
        return {name: table.layout for name, table in self.windows.items()}

    @property
    def begun(self) -> bool:
        """Whether there is a partition row: a log that was empty at the start has one with nothing applied."""
        return self.db.get([keys.PARTITION]) != [None]

    def load(self) -> tuple[PartitionState, int]:
        """The partition row and the closing bound as the local state has them."""
        row, closed = self.db.get([keys.PARTITION, keys.CLOSED])
        state = decode_state(row) if row is not None else PartitionState()
        return state, keys.unpack_int(closed) if closed is not None else BEGINNING

    def batch(self, raw: RawBatch, state: PartitionState, closed_upto: int, known: Answers | None) -> Step:
        """Take one batch through the stages and work out all that it changes. `known`: see StagePipeline.run.

        Raises FloodGuardTripped, PipelineAborted, DependencyError (a handler's outage). Nothing has been written then.
        """
        result = self._stages.run(raw, state, self._seen, known)
        begun = self._clock.monotonic()
        dead, late = dead_letters(result, self.plan, self._clock, context=self._context), self._late(result)
        self._flood.observe(Failures.of(result, dead))
        step = Step(result.state, Effects(), closed_upto, result, dead=[*dead, *late.letters])
        retries = retry_rows(result, self.plan, self._clock, self._counts)
        step.effects.topics += by_partition([*self._dead_rows(step.dead), *late.rows, *retries])
        step.dlq_seconds = self._clock.monotonic() - begun
        changed = {name: self.windows[name].apply(self.db, d) for name, d in result.deltas.items() if d.num_rows}
        for rows in changed.values():
            step.effects.put(rows.keys, rows.values)
        self._add_late_windows(result, step.effects)
        self._add_seen(result, step.effects)
        bound = self.own_watermark(result.state, closed_upto)
        self._emit(changed, closed_upto, bound, step)
        self.drop_expired(state, changed, step)
        self._finish(step, state)
        return step

    def closing(self, state: PartitionState, closed_upto: int, bound: int) -> Step:
        """Close the windows that end up to `bound` (ms) without a batch: the partition is quiet, the pipeline went on."""
        step = Step(state, Effects(), closed_upto)
        self._emit({}, closed_upto, bound, step)
        self._finish(step, state)
        return step

    def offsets_of(self, result: BatchResult, aggregation: AggregationPlan, rows: Sequence[int]) -> list[int]:
        """The offsets of the records behind these delta rows, for dead-lettering what a sink refuses."""
        return self._stages.offsets_of(result, aggregation.name, rows)

    def own_watermark(self, state: PartitionState, closed_upto: int) -> int:
        return closed_upto if state.high_water is None else max(closed_upto, state.high_water - self._delay)

    def _emit(self, changed: dict[str, WindowRows], closed_upto: int, bound: int, step: Step) -> None:
        step.windows_closed, step.open_windows = self.emitter.emit(changed, closed_upto, bound, step.effects)
        step.closed_upto = max(closed_upto, bound)

    def _add_late_windows(self, result: BatchResult, effects: Effects) -> None:
        table = result.late_windows
        if table is None or not table.num_rows:
            return
        ends = order_preserving(table["window_end"].to_numpy())
        names = table["aggregation"].to_pylist()
        row_keys = [aggregation_prefix(keys.LATE, n) + ends[i * 8 : i * 8 + 8] for i, n in enumerate(names)]
        before = [0 if value is None else keys.unpack_int(value) for value in self.db.get(row_keys)]
        missing = table["missing"].to_pylist()
        effects.put(row_keys, [keys.pack_int(a + b) for a, b in zip(before, missing, strict=True)])

    def _add_seen(self, result: BatchResult, effects: Effects) -> None:
        self.remember(result.seen, effects)
        self.forget_seen(result.state, effects)

    def remember(self, seen: Sequence[tuple[bytes, int]], effects: Effects) -> None:
        """Keys that dedupe has seen, and when (ms)."""
        if isinstance(self._seen, SeenTable):
            self._seen.remember(seen, effects)

    def forget_seen(self, state: PartitionState, effects: Effects) -> None:
        """Keys of which no record can be a duplicate any more."""
        dedupe = self.plan.pipeline.dedupe
        if isinstance(self._seen, SeenTable) and dedupe is not None and state.dedupe_clock is not None:
            self._seen.forget(state.dedupe_clock - dedupe.horizon, effects)

    def _late(self, result: BatchResult) -> Late:
        topic = late_topic(self.plan.pipeline)
        return late_records(result, self.plan, self._clock, partitions=self._counts.get(topic or "", 1))

    def _dead_rows(self, dead: Sequence[Letter]) -> list[OutRow]:
        if not dead:
            return []
        return self._publisher.rows(dead, self.tp, self._counts.get(self._publisher.topic or "", 1))

    def drop_expired(self, before: PartitionState, changed: dict[str, WindowRows], step: Step) -> None:
        """Forget windows that nothing may change any more, so that the state does not grow with time.

        Those of this very batch too: when the high water leaps, a window can open and expire in one.
        """
        expiry = self.expiry(step.state)
        for name, table in self.windows.items():
            gone = dict.fromkeys(table.expired(self.db, self.expiry(before), expiry))
            if name in changed:
                ends = changed[name].table["window_end"].to_numpy()
                gone |= dict.fromkeys(changed[name].keys[i] for i in np.flatnonzero(ends <= expiry))
            step.effects.deletes += gone

    def expiry(self, state: PartitionState) -> int:
        """Windows that end up to here (ms) are forgotten."""
        event_time = self.plan.pipeline.event_time
        if event_time is None or state.high_water is None:
            return BEGINNING
        return state.high_water - event_time.delay - event_time.allowed_lateness - event_time.retention

    def _finish(self, step: Step, before: PartitionState) -> None:
        """The partition row, the closing bound and the watermark: last in the transaction, so that they stand for all of it."""
        effects, state = step.effects, step.state
        effects.put([keys.CLOSED, keys.PARTITION], [keys.pack_int(step.closed_upto), encode_state(state)])
        watermark = NEVER if state.high_water is None else state.high_water - self._delay
        row = SourceWatermark(self.tp.topic, self.tp.partition, watermark, state.upto, state.idle)
        effects.send(watermarks_topic(self.plan.pipeline), 0, [watermark_key(self.tp)], [encode_watermark(row)])
        self.emitter.mark(row, effects)
