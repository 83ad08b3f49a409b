"""What the pipeline would say of a record now: the same stages, without anything that has an effect on the outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dlq.replay.outgoing import Outgoing
from tidegate.clock import Clock
from tidegate.config.pipeline import Pipeline
from tidegate.config.stages import Measure
from tidegate.headers import REPLAY_OF
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState, RawBatch, Rejection
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import compile_plan


class Verdict(NamedTuple):
    """One record that would fail, and why."""

    record: Outgoing
    rejection: Rejection


def without_effects(pipeline: Pipeline) -> tuple[Pipeline, str | None]:
    """The pipeline up to its first handler that a preview may not call; and that handler (None: the whole way).

    A rule that would abort rejects. Dedupe is left out: what has been seen is the worker's to know. Windows stay, since
    they tell which records come too late to be counted.
    """
    free = next((n for n, handler in enumerate(pipeline.handlers) if not handler.preview), len(pipeline.handlers))
    stops = pipeline.handlers[free].call if free < len(pipeline.handlers) else None
    rules = tuple(
        rule.model_copy(update={"on_failure": "deadLetter"}) if rule.on_failure == "abort" else rule
        for rule in pipeline.rules
    )
    aggregations = pipeline.aggregations
    if stops is not None:  # the columns that they are computed from do not exist yet
        bare = {"group_by": (), "measures": {"n": Measure(type="count")}}
        aggregations = tuple(aggregation.model_copy(update=bare) for aggregation in aggregations)
    update = {"rules": rules, "dedupe": None, "handlers": pipeline.handlers[:free], "aggregations": aggregations}
    return pipeline.model_copy(update=update), stops


class DryRun:
    """The stages of a pipeline without effects. Used by one thread at a time."""

    def __init__(self, pipeline: Pipeline, high_waters: Mapping[TopicPartition, int | None], clock: Clock) -> None:
        """`high_waters`: how far (event time, ms) each source partition is. Raises ConfigError."""
        bare, self.stops_before = without_effects(pipeline)
        self._stages = StagePipeline(compile_plan(bare))
        self._high_waters, self._clock = high_waters, clock

    def check(self, records: Sequence[Outgoing]) -> list[Verdict]:
        """Those that would fail. Raises DependencyError when a handler's service is away."""
        by_partition: defaultdict[TopicPartition, list[Outgoing]] = defaultdict(list)
        for record in records:
            by_partition[record.target].append(record)
        now = int(self._clock.time() * 1000)
        verdicts: list[Verdict] = []
        for tp, part in by_partition.items():
            state = PartitionState(high_water=self._high_waters.get(tp))
            result = self._stages.run(_raw(tp, part, now), state)
            verdicts += [Verdict(part[rejection.offset], rejection) for rejection in result.rejected]
        return verdicts

    def close(self) -> None:
        self._stages.close()


def _raw(tp: TopicPartition, records: Sequence[Outgoing], now: int) -> RawBatch:
    """As they would be read: marked as replays, with the time at which they would be sent. Numbered from 0."""
    count = len(records)
    keys, values = [record.key for record in records], [record.value for record in records]
    return RawBatch.of(tp, range(count), [now] * count, keys, values, [[(REPLAY_OF, b"")]] * count)
