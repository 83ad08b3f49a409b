"""Who listens to a circuit breaker: what is told, in which order, and that a listener can do no harm."""

from __future__ import annotations

import pytest

from tidegate.clock import ManualClock
from tidegate.config.errorhandling import CircuitBreaker as Config
from tidegate.errors import CircuitOpen, StoreUnavailable
from tidegate.resilience import BreakerState, CallOutcome, CircuitBreaker, Listener


class Heard(Listener):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.transitions: list[tuple[str, str]] = []
        self.calls: list[str] = []

    def on_transition(self, breaker: CircuitBreaker, before: BreakerState, after: BreakerState) -> None:
        self.transitions.append((before.value, after.value))

    def on_call(self, breaker: CircuitBreaker, outcome: CallOutcome) -> None:
        self.calls.append(outcome.value)


class Broken(Listener):
    """Raises whatever it is told."""

    def on_transition(self, breaker: CircuitBreaker, before: BreakerState, after: BreakerState) -> None:
        raise RuntimeError("a listener with a bug")

    def on_call(self, breaker: CircuitBreaker, outcome: CallOutcome) -> None:
        raise RuntimeError("a listener with a bug")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    return make(clock, failure_threshold=3)


def make(clock: ManualClock, *, failure_threshold: int) -> CircuitBreaker:
    return CircuitBreaker("postgres", Config(failure_threshold=failure_threshold), clock=clock)


def away() -> None:
    raise StoreUnavailable("connection refused")


def fail(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            breaker.call(away)


def test_listeners_hear_in_order(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Listeners hear of every call and of every transition, in order, until they leave."""
    heard = Heard()
    leave = breaker.listen(heard)
    fail(breaker)
    with pytest.raises(CircuitOpen):
        breaker.call(int)
    clock.advance(60)
    breaker.call(int)
    leave()
    fail(breaker)
    assert heard.transitions == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
    assert heard.calls == ["failure", "failure", "failure", "rejected", "success"]


def test_broken_listener_changes_nothing(breaker: CircuitBreaker) -> None:
    """A listener that raises hides neither the real error nor the transition, and the next one is still told."""
    heard = Heard()
    breaker.listen(Broken())
    breaker.listen(heard)
    fail(breaker)
    assert breaker.state is BreakerState.OPEN
    assert heard.transitions == [("closed", "open")]


def test_listener_may_use_the_breaker() -> None:
    """A listener may call through the breaker that tells it, and the next one still hears all in its order."""
    clock = ManualClock()
    breaker = make(clock, failure_threshold=1)
    told: list[str] = []

    class Curious(Listener):
        def on_transition(self, source: CircuitBreaker, before: BreakerState, after: BreakerState) -> None:
            told.append(f"{before}>{after}")
            if after is BreakerState.OPEN and len(told) == 1:
                clock.advance(60)
                source.call(lambda: None)

    heard = Heard()
    breaker.listen(Curious())
    breaker.listen(heard)
    with pytest.raises(StoreUnavailable):
        breaker.call(away)
    assert told == ["closed>open", "open>half_open", "half_open>closed"]
    assert heard.transitions == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
