"""What a worker's steps look like as metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from tests.reference import as_replay
from tests.unit.worker.pieces import TP, partition, plan_of, raw, record
from tidegate.clock import ManualClock
from tidegate.errors import BrokerUnavailable, PipelineAborted
from tidegate.record import TopicPartition
from transport.batch import SourceBatch
from worker.observe import Observer

RULES: list[dict[str, Any]] = [
    {"type": "range", "column": "amount", "min": 0},
    {"type": "notNull", "column": "id", "severity": "warning", "name": "has an id"},
]


class Counting:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[str, ...]], float] = {}

    def inc(self, metric: Any, values: tuple[str, ...], by: float) -> None:
        self.values[metric.name, values] = self.values.get((metric.name, values), 0) + by

    def set(self, metric: Any, values: tuple[str, ...], value: float) -> None:
        self.values[metric.name, values] = value

    def observe(self, metric: Any, values: tuple[str, ...], value: float, count: int) -> None:
        self.inc(metric, values, count)

    def drop(self, metric: Any, values: tuple[str, ...]) -> None:
        self.values.pop((metric.name, values), None)

    def __getitem__(self, what: tuple[str, ...]) -> float:
        return self.values.get((f"tidegate_{what[0]}", what[1:]), 0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def watched(clock: ManualClock) -> tuple[Observer, Counting]:
    observer, counting = Observer(plan_of(rules=RULES), clock), Counting()
    observer.metrics._reporters = (counting,)
    return observer, counting


def batch(*offsets: int, fetched: float = 0.0, tp: TopicPartition = TP) -> SourceBatch:
    records = [record(offset, 0) for offset in offsets]
    return SourceBatch(tp, cast(Any, records), 10, fetched=fetched)


def test_records_are_in_progress_from_the_fetch_to_the_commit(
    watched: tuple[Observer, Counting], clock: ManualClock
) -> None:
    """They are counted as they come, and taken off when committed, dropped or revoked; the wait in the queue counts."""
    observer, m = watched
    first, second, third = batch(1, 2, fetched=clock.monotonic()), batch(3, fetched=clock.monotonic()), batch(4)
    for one in (first, second, third):
        observer.offered(TP, one)
    assert (m["records_consumed_total", "flights"], m["records_in_progress", "flights"]) == (4, 4)
    clock.advance(2)
    observer.finished(TP, first)
    assert m["record_processing_duration_seconds", "flights"] == 2
    observer.dropped(TP, second)
    assert m["records_in_progress", "flights"] == 1
    observer.revoked([TP])
    assert m["records_in_progress", "flights"] == 0


def test_a_worker_is_active_with_partitions_that_nobody_holds_off(watched: tuple[Observer, Counting]) -> None:
    """An outage or a fence is no other engine; a catch-up that holds all of them is."""
    observer, m = watched
    other = TopicPartition("flights", 1)
    seen = []
    for change in (
        lambda: observer.assigned([TP, other]),
        lambda: observer.paused(TP, "outage"),
        lambda: observer.paused(other, "held"),
        lambda: observer.paused(TP, "held"),
        lambda: observer.resumed(other),
        lambda: observer.revoked([TP, other]),
    ):
        change()
        seen.append(m["engine_active", "stream"])
    assert seen == [1, 1, 1, 0, 1, 0]


def test_telling_the_group_is_counted(watched: tuple[Observer, Counting]) -> None:
    """By whether the broker has taken it."""
    observer, m = watched
    for ok in (True, False, True):
        observer.told_the_group(ok)
    assert (m["offset_commits_total", "ok"], m["offset_commits_total", "failed"]) == (2, 1)


def test_partials_are_no_records(watched: tuple[Observer, Counting]) -> None:
    """What the merge agent reads is not counted as read from a source."""
    observer, m = watched
    observer.offered(TopicPartition("p..partials", 0), batch(1))
    assert m["records_consumed_total", "p..partials"] == 0


def test_totals_that_came_too_late_are_counted(watched: tuple[Observer, Counting]) -> None:
    """Nothing is missing on Kafka without a number that says so."""
    observer, m = watched
    observer.merged({"totals": 2})
    observer.merged({"totals": 0})
    assert m["results_expired_total", "totals"] == 2


def test_a_step_says_what_the_rules_found(watched: tuple[Observer, Counting], tmp_path: Path) -> None:
    """Only records that came through decode are judged; a warning does not reject. A replay that was sent twice comes once."""
    observer, m = watched
    with partition(plan_of(rules=RULES), tmp_path / "state") as p:
        bad = record(2, 1_000)._replace(value=b"{")
        replay = as_replay(record(0, 1_000, id="x"), "0123456789abcdef")
        step = p.take(replay, record(1, 1_000, amount=-1), bad, replay._replace(offset=3))
        observer.committed(TP, step, 0.5, 0.25)
    assert m["quality_records_total", "flights", "valid"] == 1
    assert m["quality_records_total", "flights", "rejected"] == 1
    assert m["quality_rule_evaluations_total", "has an id", "pass"] == 1
    assert m["quality_rule_failures_total", "flights", "has an id", "warning"] == 1
    assert m["quality_check_duration_seconds",] == 1
    assert m["records_processed_total", "flights", "dead_lettered"] == 2
    assert m["duplicate_records_total", "flights"] == m["records_processed_total", "flights", "duplicate"] == 1
    assert m["dlq_records_total", "flights", "decode", "MalformedJson"] == 1
    assert (m["worker_time_seconds_total", "sink"], m["worker_time_seconds_total", "commit"]) == (0.5, 0.25)
    assert m["windows_open", "totals"] == 1


@pytest.mark.parametrize(
    ("parts", "is_said"),
    [
        ({"severity": "warning"}, True),
        ({"severity": "error", "onFailure": "warn"}, True),
        ({"severity": "error"}, False),
    ],
)
def test_what_fails_and_goes_on_is_said_with_ten_samples(
    watched: tuple[Observer, Counting], tmp_path: Path, parts: dict[str, str], is_said: bool
) -> None:
    """Per batch and rule, with offsets; what is rejected has its dead letters instead."""
    rules = [{"type": "range", "column": "amount", "min": 0, "name": "paid", **parts}]
    with partition(plan_of(rules=rules), tmp_path / "state") as p, capture_logs() as logged:
        step = p.take(*(record(n, 1_000, amount=-n) for n in range(15)))
        watched[0].committed(TP, step, 0.5, 0.25)
    said = [event for event in logged if event["event"] == "quality.rule_failed"]
    assert len(said) == is_said
    for event in said:
        assert (event["topic"], event["partition"], event["rule"], event["failures"]) == ("flights", 0, "paid", 14)
        assert event["samples"] == [f"offset {n}: -{n}" for n in range(1, 11)]


def test_failed_transactions_are_counted(watched: tuple[Observer, Counting], tmp_path: Path) -> None:
    """By the error's type, and as a failure to publish when dead letters were in them."""
    observer, m = watched
    with partition(plan_of(rules=RULES), tmp_path / "state") as p:
        step = p.take(record(0, 1_000, amount=-1))
    with pytest.raises(BrokerUnavailable), observer.producing(TP, step):
        raise BrokerUnavailable("away")
    with observer.producing(TP, step):
        pass
    assert m["produce_errors_total", "flights", "BrokerUnavailable"] == 1
    assert m["dlq_publish_errors_total", "kafka"] == 1
    assert m["dlq_publish_duration_seconds", "kafka"] == 1


def test_an_abort_is_counted(watched: tuple[Observer, Counting]) -> None:
    """A rule with `onFailure: abort` that stops the worker shows before it is gone."""
    observer, m = watched
    with pytest.raises(PipelineAborted), observer.batch(TP, raw(record(0, 0))):
        raise PipelineAborted("no")
    assert m["quality_aborts_total", "flights"] == 1


def test_families_are_there_before_anything_happens() -> None:
    """Rules and guarded dependencies have their zero series from the start, so that the first failure shows in rate()."""
    observer = Observer(plan_of(rules=RULES))
    series = observer.metrics._series
    names = {metric.name: values for metric, values in series.items()}
    assert ("flights", "has an id", "warning") in names["tidegate_quality_rule_failures_total"]
    assert ("store", "rejected") in names["tidegate_breaker_calls_total"]
