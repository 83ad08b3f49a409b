"""What a task does with its split of the log: look at it, or recompute the windows of a range from it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from batch.backfill.patience import Patience
from batch.backfill.ranges import LogRange
from batch.backfill.splits import Looked, Split
from batch.stage import Refused
from dlq.collect import pick
from dlq.late_reading import LateSource
from tidegate.config.errorhandling import ErrorHandling
from tidegate.record import Stage
from tidegate.resilience.guard import Guard
from tidegate.stages.aggregate import merge_partials
from tidegate.stages.batch import BatchResult, MissedWindow, NothingSeen, PartitionState, RawBatch, Reason, Rejection
from tidegate.stages.parts import Recollection
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import Plan
from tidegate.stages.repeats import passages
from tidegate.stages.sql import connect
from tidegate.stages.types import EVENT_TIME


def judging(plan: Plan) -> Plan:
    """The plan up to the decision who is late: no handler is asked and nothing is measured."""
    bare = tuple(replace(aggregation, group=(), measures=()) for aggregation in plan.aggregations)
    pipeline = plan.pipeline.model_copy(update={"handlers": ()})
    return replace(plan, pipeline=pipeline, columns=plan.decoded, aggregations=bare)


Given = TypeVar("Given")
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Guarded(Generic[Given, Done]):
    """A task that waits out an outage of the brokers, as Patience does, and begins its split anew."""

    task: Callable[[Given], Done]
    config: ErrorHandling

    def __call__(self, given: Given) -> Done:
        return Patience(Guard("kafka", self.config), reached=True).call(self.task, given)


@dataclass(frozen=True, slots=True)
class Look:
    """The first look: decode, rules and event time, and no more."""

    plan: Plan
    log: LogRange

    def __call__(self, split: Split) -> Looked:
        stages = _stages(pickle.dumps(judging(self.plan)))
        looked, state = Looked(split), PartitionState(split.start - 1)
        for raw in self.log.read(split, self.plan.records_at_once):
            result = stages.run(raw, state)
            state = result.state
            times = [
                *pc.min_max(result.accepted.column(EVENT_TIME)).as_py().values(),
                *(late.event_time for late in result.late),
                looked.earliest,
                looked.latest,
            ]
            known = [time for time in times if time is not None]
            looked = Looked(
                split,
                looked.records + len(raw),
                state.high_water,
                min(known, default=None),
                max(known, default=None),
                (*looked.passages, *passages(raw)),
            )
        return looked


@dataclass(frozen=True, slots=True)
class Part:
    """A split with the state before it, and what the shadow has refused of it."""

    split: Split
    before: PartitionState
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What a split adds to the windows of the range. `late`: its late records that are amended already."""

    split: Split
    state: PartitionState
    deltas: Mapping[str, pa.Table]
    late_windows: pa.Table | None
    late: Sequence[LateSource]


@dataclass(frozen=True, slots=True)
class Recompute:
    """All stages, and of their partials those of windows that start in `begin` ≤ start < `end` (ms).

    `amended`: per partition the offset up to which late records are in the results.
    """

    plan: Plan
    log: LogRange
    begin: int
    end: int
    amended: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, part: Part) -> Recomputed:
        stages = _stages(pickle.dumps(self.plan))
        state, memory = part.before, Recollection(NothingSeen())
        deltas: dict[str, list[pa.Table]] = {aggregation.name: [] for aggregation in self.plan.aggregations}
        windows: list[pa.Table] = []
        late: list[LateSource] = []
        for raw in self.log.read(part.split, self.plan.records_at_once):
            result = self._run(stages, raw, state, memory, part.refused)
            state = result.state
            memory.remember(result.seen)
            for name, table in result.deltas.items():
                deltas[name].append(self._within(table))
            if result.late_windows is not None:
                windows.append(self._within(result.late_windows))
            late += self._late(result)
        merged = {
            a.name: merge_partials(a, deltas[a.name], connect()) for a in self.plan.aggregations if deltas[a.name]
        }
        return Recomputed(part.split, state, merged, pa.concat_tables(windows) if windows else None, late)

    def _run(
        self,
        stages: StagePipeline,
        raw: RawBatch,
        state: PartitionState,
        memory: Recollection,
        refused: Sequence[Refused],
    ) -> BatchResult:
        """Once more, if the shadow has refused what some of the records add to."""
        result = stages.run(raw, state, memory)
        rejected = {
            offset: Rejection(offset, Stage.SINK, (Reason("SinkRefused", one.message, field=one.aggregation),))
            for one in refused
            for offset in stages.offsets_behind(result, one.aggregation, one.keys)
        }
        return stages.run(raw, state, memory, result.answers_with(rejected)) if rejected else result

    def _within(self, table: pa.Table) -> pa.Table:
        start = table.column("window_start")
        return table.filter(pc.and_(pc.greater_equal(start, self.begin), pc.less(start, self.end)))

    def _late(self, result: BatchResult) -> Iterator[LateSource]:
        amended = self.amended.get(str(result.raw.tp), -1)
        late = [(one, self._missed(one.missed)) for one in result.late if one.offset <= amended]
        late = [(one, missed) for one, missed in late if missed]
        for (one, missed), record in zip(late, pick(result.raw, [one.offset for one, _ in late]), strict=True):
            yield LateSource.of(record, missed, one.partial)

    def _missed(self, missed: Sequence[MissedWindow]) -> tuple[MissedWindow, ...]:
        return tuple(window for window in missed if self.begin <= window.start < self.end)


@lru_cache(maxsize=2)
def _stages(pickled: bytes) -> StagePipeline:
    """Made once in a process: that takes longer than many a split."""
    return StagePipeline(pickle.loads(pickled))
