"""Retry on `backoff`: its wait generators and its jitter protocol, in a loop of our own.

Why not `backoff.on_exception` itself (2.2.1; each point is shown in tests/unit/resilience/test_backoff_facts.py):
- it sleeps with `time.sleep` and `asyncio.sleep` and asks `datetime.now`: time cannot be passed in;
- `max_time` is looked at with the time *before* the call: a call of 0.3 s with max_time 0.1 is made twice;
- an object with an async `__call__` is taken for a function, so that nothing is retried;
- one decorator object on two functions logs everything twice, and a handler that raises replaces the real error.

What backoff does well is used: `backoff.expo` and `backoff.constant` give the waits, and the jitter is a function of
the wait, as backoff's own are (backoff ships none that keeps waits between 50 and 100 %).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from itertools import islice, repeat
from typing import ParamSpec, TypeVar

import backoff

from tidegate.clock import Clock
from tidegate.config.errorhandling import Retry
from tidegate.errors import CircuitOpen
from tidegate.resilience.listener import Listener, Listeners, RetryKind
from tidegate.resilience.transient import is_transient, refuse_coroutine

P = ParamSpec("P")
T = TypeVar("T")


class RetryPolicy:
    """Tries a call again while it fails with a transient error.

    Use `call` for functions, partials and callable objects, `call_async` for whatever returns an awaitable. The
    result is the call's, or the last error itself, unwrapped. Safe to share between threads and tasks: each call has
    its own count.
    """

    def __init__(
        self,
        config: Retry,
        *,
        clock: Clock,
        rng: random.Random,
        sleep: Callable[[float], None] = time.sleep,
        async_sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        retry_on: tuple[type[BaseException], ...] = (),
        target: str = "call",
        listeners: Listeners | None = None,
        pointless: Callable[[float], bool] = lambda wait: False,
    ) -> None:
        """`retry_on`: transient errors besides those of `is_transient`. `target`: the name that listeners are told.

        `pointless(wait)`: asked before each wait (seconds); True gives up at once (a breaker that stays open longer
        than that).
        """
        self.config, self.target = config, target
        self._clock, self._rng = clock, rng
        self._sleep, self._async_sleep = sleep, async_sleep
        self._retry_on = retry_on
        self._pointless = pointless
        self._listeners = listeners or Listeners()
        self._total = None if config.max_total_ms is None else config.max_total_ms / 1000

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` of retries (`on_retry`) and ends (`on_finish`). Returns what ends that."""
        return self._listeners.add(listener)

    def delays(self) -> Iterator[float]:
        """The waits between one call's attempts, in seconds: `maxAttempts` − 1 of them, none for strategy `none`."""
        if self.config.strategy == "none":
            return
        waits = self._waits()
        next(waits)  # backoff's generators begin with an empty yield
        for wait in islice(waits, self.config.max_attempts - 1):
            yield self._jitter(wait)

    def _waits(self) -> Generator[float, None, None]:
        config = self.config
        initial = config.initial_delay_ms / 1000
        if config.strategy == "fixed-delay":
            return backoff.constant(repeat(config.delay_seconds or 0.0))
        if initial == 0:  # 0 · multiplier^n never reaches max_value, and overflows after a thousand attempts
            return backoff.constant(0)
        return backoff.expo(config.backoff_multiplier, initial, config.max_delay_ms / 1000)

    def _jitter(self, wait: float) -> float:
        return self._rng.uniform(wait / 2, wait) if self.config.jitter else wait

    def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn` until it succeeds, fails for good, or no attempt is left.

        Raises what the last attempt raised; TypeError when `fn` is asynchronous; RuntimeError when it would have to
        sleep on an event loop's thread. Sleeps block: from asyncio use `call_async`.
        """
        attempts = _Attempts(self)
        while True:
            try:
                result = fn(*args, **kwargs)
            except Exception as error:
                wait = attempts.failed(error)
                if wait is None:
                    raise
                if self._sleep is time.sleep:
                    _refuse_event_loop(self.target)
            else:
                refuse_coroutine(fn, result)
                attempts.succeeded()
                return result
            self._sleep(wait)

    async def call_async(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`, for anything whose result can be awaited. Cancellation ends it at once, in a wait too."""
        attempts = _Attempts(self)
        while True:
            try:
                result = await fn(*args, **kwargs)
            except Exception as error:
                wait = attempts.failed(error)
                if wait is None:
                    raise
            else:
                attempts.succeeded()
                return result
            await self._async_sleep(wait)

    def next_wait(self, error: Exception, waits: Iterator[float], elapsed: float) -> float | None:
        """The seconds to wait before the next attempt, or None when there is to be none."""
        if not is_transient(error, self._retry_on):
            return None
        wait = next(waits, None)
        if wait is None or (self._total is not None and elapsed + wait > self._total):
            return None
        return None if self._pointless(wait) else wait


class _Attempts:
    """The attempts of one call: what was waited for, since when, and the last error."""

    __slots__ = ("_last", "_policy", "_started", "_tried", "_waits")

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._started = policy._clock.monotonic()
        self._tried = 1
        self._waits: Iterator[float] | None = None
        self._last: Exception | None = None

    def failed(self, error: Exception) -> float | None:
        """The wait before the next attempt. None: raise `error`, which then has the last real error as its cause."""
        policy = self._policy
        if self._waits is None:
            self._waits = policy.delays()
        wait = policy.next_wait(error, self._waits, policy._clock.monotonic() - self._started)
        if wait is None:
            if isinstance(error, CircuitOpen) and error.__cause__ is None:
                error.__cause__ = self._last  # the breaker opened between two attempts: say what opened it
            self._last = None  # else the error's traceback and this object keep each other alive
            self._finish(RetryKind.FAILED_WITHOUT_RETRY if self._tried == 1 else RetryKind.FAILED_WITH_RETRY)
            return None
        tried = self._tried
        policy._listeners.tell(lambda listener: listener.on_retry(policy.target, tried, wait, error))
        self._last, self._tried = error, tried + 1
        return wait

    def succeeded(self) -> None:
        self._last = None
        self._finish(RetryKind.SUCCESSFUL_WITHOUT_RETRY if self._tried == 1 else RetryKind.SUCCESSFUL_WITH_RETRY)

    def _finish(self, kind: RetryKind) -> None:
        policy = self._policy
        policy._listeners.tell(lambda listener: listener.on_finish(policy.target, kind))


def _refuse_event_loop(target: str) -> None:
    """Raise RuntimeError on an event loop's thread: a sleep there stops heartbeats, and the worker leaves its group."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"{target}: a retry would block the event loop: use call_async, not call")
