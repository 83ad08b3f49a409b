"""pybreaker as the breaker uses it: its memory with our clock, its transitions written down, an outage to report."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

import pybreaker

from tidegate.clock import Clock
from tidegate.resilience.listener import BreakerState

STATES = {
    pybreaker.STATE_CLOSED: BreakerState.CLOSED,
    pybreaker.STATE_OPEN: BreakerState.OPEN,
    pybreaker.STATE_HALF_OPEN: BreakerState.HALF_OPEN,
}


class ClockedStorage(pybreaker.CircuitMemoryStorage):
    """pybreaker's memory, with `opened_at` from our clock: pybreaker sets `datetime.now`, which is ignored."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(pybreaker.STATE_CLOSED)
        self._clock = clock
        self.opened_monotonic = 0.0

    @property
    def opened_at(self) -> datetime | None:
        return self._opened_at

    @opened_at.setter
    def opened_at(self, _: datetime) -> None:
        self.opened_monotonic = self._clock.monotonic()
        self._opened_at = datetime.fromtimestamp(self._clock.time(), UTC)


class Transitions(pybreaker.CircuitBreakerListener):
    """Writes transitions down while the lock is held; they are told after.

    It refers to no breaker, so that none is kept alive.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.queue: deque[tuple[BreakerState, BreakerState]] = deque()

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        before = BreakerState.CLOSED if old_state is None else STATES[old_state.name]
        self.epoch += 1
        self.queue.append((before, STATES[new_state.name]))


class Outage(Exception):
    """Stands in for a dependency's error when it is reported to pybreaker."""


def succeed() -> None:
    return None


def fail() -> None:
    raise Outage
