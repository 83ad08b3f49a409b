"""Micro-batches that are planned without a query of Spark's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from batch.options import Options, Trigger
from batch.planned import PlannedBatches
from tidegate.clock import SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import OffsetOutOfRange
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState

PIPELINE = Pipeline.model_validate({"pipelineId": "p", "source": {"topics": ["t"]}})
A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Log:
    """The topic, and what is done with it: `taken` is told where each micro-batch ends."""

    def __init__(self, bounds: dict[TopicPartition, tuple[int, int]], read: dict[TopicPartition, int]) -> None:
        self.of, self.reached = bounds, read
        self.states = {tp: PartitionState() for tp in read}
        self.taken: list[dict[TopicPartition, int]] = []
        self.then: Callable[[], None] = lambda: None
        self.looked = 0

    def partitions(self, topic: str) -> list[int]:
        return [tp.partition for tp in self.of if tp.topic == topic]

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        return self.of[tp]

    def take(self, ends: Mapping[TopicPartition, int]) -> None:
        self.taken.append(dict(ends))
        self.reached |= ends
        self.then()

    def between(self) -> None:
        self.looked += 1


def followed(log: Log, options: Options, stop: threading.Event | None = None) -> list[dict[TopicPartition, int]]:
    given = cast(Any, log)
    states = cast(Any, SimpleNamespace(states=log.states))
    PlannedBatches(PIPELINE, options, states, given, given, stop or threading.Event(), SystemClock()).follow({})
    return log.taken


def test_a_run_ends_where_the_logs_ended_at_its_start() -> None:
    """What was read before is left out, as is what the log has lost of the rest, and what comes meanwhile."""
    log = Log({A: (0, 10), B: (5, 8)}, {A: 4, B: -2})

    def more() -> None:
        log.of |= {A: (0, 100), TopicPartition("t", 2): (0, 7)}

    log.then = more
    assert followed(log, Options(max_records=3)) == [{A: 6, B: 6}, {A: 8, B: 7}, {A: 10, B: 8}]
    assert followed(Log({A: (0, 10), B: (5, 8)}, {A: 4, B: -2}), Options(Trigger(single=True), 3)) == [{A: 10, B: 8}]
    assert followed(Log({A: (0, 10)}, {A: 10}), Options()) == []


def test_a_run_with_an_interval_goes_on_until_it_is_stopped() -> None:
    """With what comes meanwhile, in partitions that were not there before as well; nothing is done where nothing is new. After
    each micro-batch there is a moment for idle partitions, however far it is behind."""
    log, stop = Log({A: (0, 2)}, {A: 0}), threading.Event()

    def then() -> None:
        if len(log.taken) == 1:
            threading.Timer(0.05, lambda: log.of.update({A: (0, 3), B: (0, 1)})).start()
        else:
            stop.set()

    log.then = then
    assert followed(log, Options(Trigger(interval=1)), stop) == [{A: 2}, {A: 3, B: 1}]
    assert log.looked >= 2


def test_a_log_that_ends_before_what_was_read_of_it_is_an_error() -> None:
    """As that of a topic that was made anew: without it a run would wait for offsets that never come."""
    with pytest.raises(OffsetOutOfRange, match="goes on at offset 11"):
        followed(Log({A: (0, 10)}, {A: 11}), Options())
