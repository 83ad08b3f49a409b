"""`tidegate batch backfill --from --to`: windows computed anew under the pipeline file as it is, and put in the place of the old.

1. the shadow   what stands in the live tables is noted, with the offsets up to which it is of
2. a look       at the log from its beginning, in splits: their largest event times give the high water before each split, and
                the replays in them those that were there before
3. recompute    the splits that have records of these windows, each from these on, so that lateness is what it would be had the
                log been read in one go; the results go to the shadow, a split in one transaction
4. late         records that a backfill had added before are added here too
5. compare      the shadow with the live tables, result by result
6. promote      when told: in one transaction, what has changed since being left as it is

Nothing but the last step changes a live table. A computation that is killed is begun again.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256

import pyarrow as pa
import structlog

from batch.backfill.late import Watch
from batch.backfill.patience import Patience
from batch.backfill.pool import Here, Pool, Processes
from batch.backfill.ranges import KafkaRange, LogRange
from batch.backfill.splits import Looked, Split, cut, overlapping, states_before
from batch.backfill.stretch import Stretches
from batch.backfill.task import Guarded, Look, Part, Recompute, Recomputed
from batch.needs import require_shadow
from batch.stage import Refused
from dlq.late_reading import LateSource
from tidegate.clock import SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import SinkRecordError, StoreFenced
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import Plan, compile_plan
from tidegate.store.base import LateAccount, StoreBatch
from tidegate.store.shadow import AggregationDiff, Range, ShadowStore

log = structlog.get_logger(__name__)
SPLIT = 250_000
"""Offsets of one task. Its partials pass through this process, and are one transaction."""
_FEW = 200_000  # offsets; fewer are done here before other processes have started
_STRETCH = 20_000  # late records of one transaction


class RecomputeBackfill:
    """One computation over one pipeline, or its promotion. `log`: where to read; None: the source topics.

    `split`: offsets of one task (SPLIT). `pool`: where tasks run; None: on this machine, by the size of the work.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        watch: Watch,
        *,
        log: LogRange | None = None,
        split: int | None = None,
        pool: Pool | None = None,
    ) -> None:
        """Raises ConfigError for a pipeline without PostgreSQL."""
        self._sink = require_shadow(pipeline)
        self._plan: Plan = compile_plan(pipeline)
        self._pipeline, self._watch, self._split, self._pool = pipeline, watch, split or SPLIT, pool
        self._log = log or KafkaRange.of(pipeline, "backfill")
        self._of_store = Patience(Guard("store", pipeline.error_handling))
        self._of_kafka = Patience(Guard("kafka", pipeline.error_handling))
        self._owner = f"backfill:{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._digest = digest(pipeline)

    def compute(self, span: Range) -> tuple[Range, bool, list[AggregationDiff]]:
        """Steps 1 to 5. What differs.

        Raises DependencyError, StoreFenced (another computation of this pipeline), AggregateOverflow, ConfigError.
        """
        store = ShadowStore(self._plan, self._sink, SystemClock())
        try:
            accounts = self._of_store.call(store.begin, span, self._digest)
            whole = self._fill(store, span, [account for account in accounts if account.upto >= 0])
            self._watch.phase("comparing")
            self._of_store.call(lambda: store.compare(whole=whole))
            return self._of_store.call(store.diffs)
        finally:
            store.close()

    def promote(self) -> tuple[Range, bool, list[AggregationDiff]]:
        """Step 6. Raises ConfigError when there is no shadow of this very pipeline file, DependencyError."""
        store = ShadowStore(self._plan, self._sink, SystemClock())
        try:
            self._watch.phase("promoting")
            self._of_store.call(store.require_compared)
            self._of_store.call(store.promote, self._digest)
            return self._of_store.call(store.diffs)
        finally:
            store.close()

    def _fill(self, store: ShadowStore, span: Range, accounts: Sequence[LateAccount]) -> bool:
        """Steps 2 to 4. Whether the log has its beginning in every partition."""
        found = self._of_kafka.call(self._log.bounds, [account.tp for account in accounts])
        ends = {account.tp: account.upto + 1 for account in accounts}
        lows = {tp: low for tp, (low, high) in found.items() if high >= ends[tp]}
        bounds = {tp: (lows.get(tp, end), end) for tp, end in ends.items()}
        size = None if self._plan.pipeline.dedupe is not None else self._split
        splits = cut(bounds, size)
        few = sum(split.end - split.start for split in splits) < _FEW or len(splits) == 1
        with nullcontext(self._pool) if self._pool else nullcontext(Here()) if few else Processes() as pool:
            parts = self._parts(pool, splits, span)
            late = self._recompute(store, pool, parts, span, accounts)
        self._amend(store, late, accounts)
        return all(low == 0 for low, _ in bounds.values())

    def _parts(self, pool: Pool, splits: list[Split], span: Range) -> list[Part]:
        """Step 2: what is to be recomputed, and from which state on. A partition that is one split begins with none."""
        if len({split.tp for split in splits}) == len(splits):
            return [Part(split, PartitionState(split.start - 1)) for split in splits]
        self._watch.phase("looking at the log", _offsets(splits))
        looked: list[Looked] = []
        for one in pool.map(Guarded(Look(self._plan, self._log), self._pipeline.error_handling), splits):
            looked.append(one)
            self._watch.advance(one.split.end - one.split.start)
        before = states_before(looked)
        longest = max((aggregation.size for aggregation in self._plan.aggregations), default=0)
        return [Part(split, before[split]) for split in overlapping(looked, *span, longest)]

    def _recompute(
        self, store: ShadowStore, pool: Pool, parts: Sequence[Part], span: Range, accounts: Sequence[LateAccount]
    ) -> dict[TopicPartition, list[LateSource]]:
        """Step 3. The late records that are amended already."""
        amended = {str(account.tp): account.amended_upto for account in accounts}
        task = Guarded(Recompute(self._plan, self._log, *span, amended), self._pipeline.error_handling)
        tps = sorted({part.split.tp for part in parts})
        rows = self._of_store.call(store.claim, tps, self._owner) if tps else {}
        upto = dict.fromkeys(tps, -1)
        late: dict[TopicPartition, list[LateSource]] = {tp: [] for tp in tps}
        self._watch.phase("recomputing", _offsets(part.split for part in parts))
        for part, first in zip(parts, pool.map(task, parts), strict=True):
            tp = part.split.tp
            done = self._write(store, pool, task, part, first, upto[tp], rows[tp].epoch)
            late[tp] += done.late
            upto[tp] = done.split.end - 1
            self._watch.advance(done.split.end - done.split.start)
        return late

    def _write(
        self,
        store: ShadowStore,
        pool: Pool,
        task: Callable[[Part], Recomputed],
        part: Part,
        first: Recomputed,
        before: int,
        epoch: int,
    ) -> Recomputed:
        """One split. It is recomputed without what the database refuses, as a run dead-letters that."""
        done = first
        while True:
            state = PartitionState(done.split.end - 1, done.state.high_water)
            batch = StoreBatch(done.split.tp, epoch, before, state, done.deltas, done.late_windows)
            try:
                self._of_store.call(store.write, batch)
            except StoreFenced:
                # A write whose answer was lost may have been tried again: then it was this run that moved on.
                row = next(row for row in self._of_store.call(store.partitions) if row.tp == batch.tp)
                if (row.epoch, row.state.upto) != (batch.epoch, batch.state.upto):
                    raise
            except SinkRecordError as error:
                name = error.aggregation or ""
                keys = done.deltas[name].take(pa.array(error.rows, pa.int64()))
                if any(one.aggregation == name and one.keys.equals(keys) for one in part.refused):
                    raise  # it would go on for ever
                part = replace(part, refused=(*part.refused, Refused(name, keys, str(error))))
                (done,) = pool.map(task, [part])
                continue
            return done

    def _amend(
        self, store: ShadowStore, late: dict[TopicPartition, list[LateSource]], accounts: Iterable[LateAccount]
    ) -> None:
        """Step 4."""
        upto = {account.tp: account.amended_upto for account in accounts}
        stretches = Stretches(self._plan, store, self._of_store, self._owner)
        try:
            for tp, records in late.items():
                before = -1
                for start in range(0, len(records), _STRETCH):
                    stretch = records[start : start + _STRETCH]
                    end = stretch[-1].offset if start + _STRETCH < len(records) else upto[tp]
                    stretches.add(stretch, before, end)
                    before = end
        finally:
            stretches.close()


def digest(pipeline: Pipeline) -> str:
    """Of what decides about results in a pipeline file."""
    elsewhere = {"kafka", "sinks", "telemetry", "worker", "error_handling", "dead_letters"}
    return sha256(pipeline.model_dump_json(exclude=elsewhere).encode()).hexdigest()


def _offsets(splits: Iterable[Split]) -> int:
    return sum(split.end - split.start for split in splits)
