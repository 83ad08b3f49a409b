"""How long a backfill waits for brokers and database."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from batch.backfill.patience import Patience
from tidegate.clock import ManualClock
from tidegate.config.errorhandling import ErrorHandling
from tidegate.errors import CircuitOpen, StoreFenced, StoreUnavailable
from tidegate.resilience.guard import Guard
from tidegate.resilience.registry import Registry


class Database:
    """Is away until `back` (seconds on the clock)."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.back, self.calls = clock, clock.monotonic(), 0

    def ask(self) -> str:
        self.calls += 1
        if self.clock.monotonic() < self.back:
            raise StoreUnavailable("away")
        return "answer"

    def go(self, seconds: float) -> None:
        self.back = self.clock.monotonic() + seconds


def patience(clock: ManualClock, *, reached: bool = False) -> Patience:
    """Over a guard that gives up after two attempts within a second, and rests for 5 s after five."""
    settings = {
        "retry": {"maxAttempts": 2, "initialDelayMs": 1000, "jitter": False},
        "circuitBreaker": {"resetTimeoutSeconds": 5},
    }
    handling = ErrorHandling.model_validate(settings)
    guard = Guard("store", handling, clock=clock, sleep=clock.advance, registry=Registry())
    return Patience(guard, reached=reached, clock=clock, sleep=clock.advance)


def test_an_outage_is_waited_out() -> None:
    """Longer than the retries and the open breaker; each wait is said."""
    clock = ManualClock()
    database, dependency = Database(clock), patience(clock)
    assert dependency.call(database.ask) == "answer"
    database.go(30)
    with capture_logs() as logs:
        assert dependency.call(database.ask) == "answer"
    assert 30 <= clock.monotonic() - (database.back - 30) < 45
    assert {line["event"] for line in logs} >= {"backfill.waiting"}


def test_who_never_answered_is_not_waited_for() -> None:
    """A wrong address is said after the guard's own retries; one that another process has reached is waited for."""
    clock = ManualClock()
    database = Database(clock)
    database.go(30)
    with pytest.raises(StoreUnavailable):
        patience(clock).call(database.ask)
    assert database.calls == 2
    assert patience(clock, reached=True).call(database.ask) == "answer"


def test_ten_minutes_are_the_most() -> None:
    """Then the outage is raised; a long call before the first failure does not count."""
    clock = ManualClock()
    database, dependency = Database(clock), patience(clock, reached=True)
    clock.advance(3600)
    database.go(3600)
    begun = clock.monotonic()
    with pytest.raises((StoreUnavailable, CircuitOpen)):
        dependency.call(database.ask)
    assert 600 <= clock.monotonic() - begun < 640


def test_what_is_no_outage_is_raised_at_once() -> None:
    """A fence, say."""

    def fenced() -> None:
        raise StoreFenced("another")

    with pytest.raises(StoreFenced):
        patience(ManualClock(), reached=True).call(fenced)
