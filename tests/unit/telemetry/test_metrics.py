"""Metrics: labels are checked, series are capped, zeros are there, retries and breakers are counted."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tidegate.clock import ManualClock
from tidegate.config.errorhandling import ErrorHandling
from tidegate.errors import CircuitOpen, StoreUnavailable
from tidegate.resilience import Guard, Registry
from tidegate.telemetry.bind import bind_resilience
from tidegate.telemetry.memory import MemoryReporter
from tidegate.telemetry.metric_defs import (
    BREAKER_CALLS,
    BREAKER_OPENED_TIMESTAMP,
    BREAKER_STATE,
    BREAKER_TRANSITIONS,
    CONSUMER_LAG,
    DLQ_RECORDS,
    FOLDED_LABELS,
    METRICS,
    QUALITY_RULE_EVALUATIONS,
    RECORDS_CONSUMED,
    RECORDS_PROCESSED,
    RETRY_ATTEMPTS,
    RETRY_CALLS,
    RETRY_WAIT,
)
from tidegate.telemetry.metrics import Metrics


@pytest.fixture
def memory() -> MemoryReporter:
    return MemoryReporter()


@pytest.fixture
def metrics(memory: MemoryReporter) -> Metrics:
    return Metrics(memory)


@pytest.mark.parametrize("labels", [{}, {"Topic": "flights"}, {"topic": "flights", "partition": "0"}])
def test_wrong_labels(metrics: Metrics, labels: dict[str, str]) -> None:
    """Labels other than the definition's are a bug, and the error says which there are."""
    with pytest.raises(ValueError, match=r"tidegate_records_consumed_total has the labels \['topic'\], not"):
        metrics.inc(RECORDS_CONSUMED, labels)


def test_value_outside_a_closed_list(metrics: Metrics) -> None:
    """A value that a closed label does not have is a bug, and the error says which there are."""
    with pytest.raises(ValueError, match=r"outcome is 'ok', expected one of accepted, dead_lettered"):
        metrics.inc(RECORDS_PROCESSED, {"topic": "flights", "outcome": "ok"})


def test_counter_cannot_shrink(metrics: Metrics) -> None:
    """A counter refuses a negative amount."""
    with pytest.raises(ValueError, match="a counter only grows"):
        metrics.inc(RECORDS_CONSUMED, {"topic": "flights"}, -1)


def test_counters_fold_beyond_the_cap(metrics: Metrics, memory: MemoryReporter) -> None:
    """Beyond its cap a counter goes on under `other`, closed labels kept, nothing lost, and the folding is counted."""
    for n in range(QUALITY_RULE_EVALUATIONS.cap + 50):
        metrics.inc(QUALITY_RULE_EVALUATIONS, {"rule": f"rule-{n}", "outcome": "fail"})
    metrics.inc(QUALITY_RULE_EVALUATIONS, {"rule": "rule-0", "outcome": "fail"})
    assert memory.value(QUALITY_RULE_EVALUATIONS, {"rule": "rule-0", "outcome": "fail"}) == 2
    assert memory.value(QUALITY_RULE_EVALUATIONS, {"rule": "other", "outcome": "fail"}) == 50
    assert memory.value(FOLDED_LABELS, {"metric": QUALITY_RULE_EVALUATIONS.name}) == 50
    assert sum(memory_series(memory, QUALITY_RULE_EVALUATIONS.name).values()) == QUALITY_RULE_EVALUATIONS.cap + 51


def test_gauges_drop_beyond_the_cap(metrics: Metrics, memory: MemoryReporter) -> None:
    """Beyond its cap a gauge's sample is dropped and counted; a series that is forgotten makes room."""
    labels = [{"consumergroup": "g", "topic": "t", "partition": str(n)} for n in range(CONSUMER_LAG.cap + 1)]
    for each in labels:
        metrics.set(CONSUMER_LAG, each, 1)
    assert memory.value(CONSUMER_LAG, labels[-1]) is None
    assert memory.value(FOLDED_LABELS, {"metric": CONSUMER_LAG.name}) == 1
    metrics.drop(CONSUMER_LAG, labels[0])
    metrics.set(CONSUMER_LAG, labels[-1], 7)
    assert memory.value(CONSUMER_LAG, labels[-1]) == 7


def memory_series(memory: MemoryReporter, name: str) -> dict[tuple[str, ...], float]:
    return {
        values: value for metric, series in memory.numbers() if metric.name == name for values, value in series.items()
    }


def test_prepared_series(metrics: Metrics, memory: MemoryReporter) -> None:
    """For known topics and rules every counter's series exists at zero; gauges and unknown labels do not."""
    metrics.prepare({"topic": ["flights"], "rule": ["positive-delay"]})
    assert memory.value(RECORDS_PROCESSED, {"topic": "flights", "outcome": "late"}) == 0
    assert memory.value(QUALITY_RULE_EVALUATIONS, {"rule": "positive-delay", "outcome": "fail"}) == 0
    assert memory_series(memory, DLQ_RECORDS.name) == {}
    assert {metric.kind for metric, _ in memory.numbers()} == {"counter"}


def test_preparing_twice_changes_nothing(metrics: Metrics, memory: MemoryReporter) -> None:
    """Preparing again keeps what was counted."""
    metrics.inc(RECORDS_CONSUMED, {"topic": "flights"}, 5)
    metrics.prepare({"topic": ["flights"]})
    assert memory.value(RECORDS_CONSUMED, {"topic": "flights"}) == 5


def test_a_refresher_that_raises(metrics: Metrics) -> None:
    """A source of computed metrics that raises does not keep the others from being asked."""
    asked: list[str] = []
    metrics.before_export(lambda: asked.append("first"))
    metrics.before_export(lambda: 1 // 0)  # type: ignore[arg-type]  # what it returns does not matter: it raises
    leave = metrics.before_export(lambda: asked.append("last"))
    metrics.refresh()
    leave()
    metrics.refresh()
    assert asked == ["first", "last", "first"]


class TestResilience:
    """Guarded calls, as metrics."""

    @pytest.fixture(autouse=True)
    def _make(self, metrics: Metrics, memory: MemoryReporter) -> None:
        self.clock, self.registry = ManualClock(), Registry()
        self.metrics, self.memory = metrics, memory

    def guard(self, name: str = "postgres", **breaker: object) -> Guard:
        block = {
            "retry": {"maxAttempts": 3, "initialDelayMs": 1000, "jitter": False},
            "circuitBreaker": {"failureThreshold": 4, **breaker},
        }
        return Guard(
            name,
            ErrorHandling.model_validate(block),
            clock=self.clock,
            rng=random.Random(1),
            registry=self.registry,
            sleep=self.clock.advance,
        )

    def states(self, name: str = "postgres") -> dict[str, float | None]:
        self.metrics.refresh()
        return {
            state: self.memory.value(BREAKER_STATE, {"breaker": name, "state": state})
            for state in BREAKER_STATE.labels["state"]
        }

    def fail(self, guard: Guard, body: Callable[[], object]) -> None:
        with pytest.raises((StoreUnavailable, CircuitOpen)):
            guard.call(body)

    def test_retries(self) -> None:
        """Calls are counted by how they ended, attempts by error, and the time waited is summed up."""
        bind_resilience(self.metrics, self.registry)
        guard = self.guard()
        guard.call(int)
        self.fail(guard, away)
        assert self.memory.value(RETRY_CALLS, {"target": "postgres", "kind": "successful_without_retry"}) == 1
        assert self.memory.value(RETRY_CALLS, {"target": "postgres", "kind": "failed_with_retry"}) == 1
        assert self.memory.value(RETRY_ATTEMPTS, {"target": "postgres", "error_type": "StoreUnavailable"}) == 2
        assert self.memory.value(RETRY_WAIT, {"target": "postgres"}) == 3

    def test_breaker(self) -> None:
        """Calls, transitions and the moment of opening are exported."""
        bind_resilience(self.metrics, self.registry)
        guard = self.guard()
        self.fail(guard, away)
        self.fail(guard, away)
        self.fail(guard, away)
        opened = self.clock.time()
        self.states()
        assert self.memory.value(BREAKER_CALLS, {"breaker": "postgres", "outcome": "failure"}) == 4
        assert self.memory.value(BREAKER_CALLS, {"breaker": "postgres", "outcome": "rejected"}) == 1
        transition = {"breaker": "postgres", "from": "closed", "to": "open"}
        assert self.memory.value(BREAKER_TRANSITIONS, transition) == 1
        assert self.memory.value(BREAKER_OPENED_TIMESTAMP, {"breaker": "postgres"}) == opened

    def test_exactly_one_state(self) -> None:
        """Exactly one state is 1, and it reads half_open as soon as the reset timeout has passed, without any call."""
        guard = self.guard()
        bind_resilience(self.metrics, self.registry)
        assert self.states() == {"closed": 1, "open": 0, "half_open": 0, "disabled": 0}
        self.fail(guard, away)
        self.fail(guard, away)
        assert self.states() == {"closed": 0, "open": 1, "half_open": 0, "disabled": 0}
        self.clock.advance(60)
        assert self.states() == {"closed": 0, "open": 0, "half_open": 1, "disabled": 0}

    def test_disabled(self) -> None:
        """A disabled breaker's state is `disabled`."""
        guard = self.guard(enabled=False)
        bind_resilience(self.metrics, self.registry)
        assert self.states() == {"closed": 0, "open": 0, "half_open": 0, "disabled": 1}
        assert guard.breaker.snapshot().enabled is False

    def test_worst_of_one_name(self) -> None:
        """Of several breakers with one name the worst state is exported."""
        guards = [self.guard(), self.guard(), self.guard()]
        bind_resilience(self.metrics, self.registry)
        self.fail(guards[1], away)
        self.fail(guards[1], away)
        assert self.states()["open"] == 1

    def test_zeros_for_known_breakers(self) -> None:
        """A breaker that exists already has its series at zero from the start."""
        guard = self.guard()
        bind_resilience(self.metrics, self.registry)
        assert self.memory.value(BREAKER_CALLS, {"breaker": guard.name, "outcome": "rejected"}) == 0

    def test_unbound(self) -> None:
        """After unbinding nothing is counted any more."""
        unbind = bind_resilience(self.metrics, self.registry)
        unbind()
        self.guard().call(int)
        assert self.memory.value(RETRY_CALLS, {"target": "postgres", "kind": "successful_without_retry"}) is None


def away() -> None:
    raise StoreUnavailable("connection refused")


def test_every_metric_can_be_used(metrics: Metrics, memory: MemoryReporter) -> None:
    """Every definition takes the labels it names."""
    known = {name: ["x"] for metric in METRICS for name in metric.labels}
    metrics.prepare(known)
    used = {metric.name for metric, _ in memory.numbers()} | {metric.name for metric, _ in memory.distributions()}
    assert used == {metric.name for metric in METRICS if metric.kind != "gauge"}
