"""Time is passed in: `SystemClock` in production, `ManualClock` in tests."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds on two scales: `monotonic` for durations, `time` (since the epoch) for what is written down."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()


class ManualClock:
    """A clock that moves only when told to: `advance(30)` instead of sleeping."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        self._now += seconds


class Deadline:
    """One budget of seconds, passed down a shutdown or a drain so that the timeouts of its steps do not add up."""

    def __init__(self, seconds: float, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        self._end = self._clock.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - self._clock.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining() == 0.0
