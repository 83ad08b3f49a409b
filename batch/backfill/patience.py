"""Waiting out an outage that lasts longer than a call's retries, so that an hour's computation is not begun anew for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import structlog

from tidegate.clock import Clock, Deadline, SystemClock
from tidegate.errors import CircuitOpen, DependencyError
from tidegate.resilience.guard import Guard

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)
_WAIT: Final = (0.5, 10.0)  # seconds: first and longest wait when no breaker says how long
_MOST: Final = 600.0  # seconds of one outage; then it is for a person to say when to go on


class Patience:
    """Calls a dependency through its guard; what must be called is safe to repeat.

    A dependency that has not answered once is no outage but a wrong address more often than not: what the guard raises is
    raised at once. `reached`: it has answered somebody else.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        reached: bool = False,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._guard, self._reached = guard, reached
        self._clock, self._sleep = clock or SystemClock(), sleep

    def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As Guard.call; DependencyError only when it has been away for ten minutes."""
        wait, deadline = _WAIT[0], None
        while True:
            try:
                result = self._guard.call(fn, *args, **kwargs)
            except DependencyError as error:
                deadline = deadline or Deadline(_MOST, self._clock)
                if not self._reached or deadline.expired:
                    raise
                pause = error.retry_after_ms / 1000 if isinstance(error, CircuitOpen) else wait
                log.warning("backfill.waiting", seconds=round(pause, 3), error=str(error))
                self._sleep(pause)
                wait = min(wait * 2, _WAIT[1])
            else:
                self._reached = True
                return result
