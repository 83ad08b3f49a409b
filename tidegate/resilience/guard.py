"""A guarded dependency: retry( breaker( timeout( call ))), from the `errorHandling` block. One guard per dependency.

1. timeout  one attempt that takes longer is given up (asyncio only, see `Guard`) and counts as a failure
2. breaker  a dependency that keeps failing is left alone for a while: CircuitOpen, at once
3. retry    transient errors are tried again; not while the breaker is open for longer than the wait

What comes out: the result; CircuitOpen; a DependencyError when the attempts are spent; anything else (a record that
is at fault, a fenced writer, a bug) at the first attempt and untouched.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from tidegate.clock import Clock, SystemClock
from tidegate.config.errorhandling import ErrorHandling
from tidegate.errors import DependencyError, DependencyTimeout, TidegateError
from tidegate.resilience.breaker import CircuitBreaker
from tidegate.resilience.listener import Listeners
from tidegate.resilience.registry import PROCESS, Registry
from tidegate.resilience.retry import RetryPolicy
from tidegate.resilience.transient import is_transient

P = ParamSpec("P")
T = TypeVar("T")


class Guard:
    """Calls one dependency with retries, a breaker and a timeout per attempt. Safe under threads and tasks.

    The timeout is held for `call_async` only. A synchronous call cannot be stopped from outside: cut off in a thread,
    its write might still happen after it was reported as failed. So `call` leaves the time limit to the callee (a
    connect or statement timeout; `timeout_ms` is there to be passed on to it), and so must what `call_async` runs in
    a thread.
    """

    def __init__(
        self,
        name: str,
        config: ErrorHandling,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        transient: tuple[type[BaseException], ...] = (),
        timeout_ms: int | None = None,
        registry: Registry = PROCESS,
        sleep: Callable[[float], None] = time.sleep,
        async_sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`transient`: errors that mean an outage, besides OSError and DependencyError.

        `timeout_ms`: per attempt; None takes `retry.attemptTimeoutMs`, and without that there is none.
        """
        self.name = name
        self.timeout_ms = config.retry.attempt_timeout_ms if timeout_ms is None else timeout_ms
        self._transient = transient
        clock = clock or SystemClock()
        listeners = Listeners(parent=registry.listeners)
        self.breaker = CircuitBreaker(
            name,
            config.circuit_breaker,
            clock=clock,
            is_failure=self._is_transient,
            listeners=listeners,
        )
        self.retry = RetryPolicy(
            config.retry,
            clock=clock,
            rng=rng or random.Random(),
            sleep=sleep,
            async_sleep=async_sleep,
            retry_on=transient,
            target=name,
            listeners=listeners,
            pointless=self._breaker_outlasts,
        )
        registry.add(self.breaker)

    def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn` under guard. Raises as the module says; TypeError when `fn` is asynchronous."""
        try:
            return self.retry.call(self._attempt, fn, *args, **kwargs)  # type: ignore[arg-type]  # a call in a call: ParamSpec cannot say it
        except Exception as error:
            spent = self._as_dependency_error(error)
            if spent is error:
                raise
            raise spent from error

    async def call_async(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`, for anything whose result can be awaited, with the timeout held."""
        try:
            return await self.retry.call_async(self._attempt_async, fn, *args, **kwargs)  # type: ignore[arg-type]  # a call in a call: ParamSpec cannot say it
        except Exception as error:
            spent = self._as_dependency_error(error)
            if spent is error:
                raise
            raise spent from error

    def _attempt(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.breaker.call(fn, *args, **kwargs)

    async def _attempt_async(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.timeout_ms is None:
            return await self.breaker.call_async(fn, *args, **kwargs)
        return await self.breaker.call_async(self._in_time, fn, *args, **kwargs)  # type: ignore[arg-type]  # a call in a call: ParamSpec cannot say it

    async def _in_time(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        assert self.timeout_ms is not None
        limit = asyncio.timeout(self.timeout_ms / 1000)
        try:
            async with limit:
                return await fn(*args, **kwargs)
        except TimeoutError as error:
            if not limit.expired():  # the callee's own
                raise
            raise DependencyTimeout(f"{self.name} gave no answer within {self.timeout_ms} ms") from error

    def _is_transient(self, error: BaseException) -> bool:
        return is_transient(error, self._transient)

    def _breaker_outlasts(self, wait: float) -> bool:
        """Whether the breaker is still open after `wait` seconds, so that waiting is for nothing."""
        return self.breaker.retry_after_ms > wait * 1000

    def _as_dependency_error(self, error: Exception) -> Exception:
        """`error` itself, or the DependencyError that says the same of an outage in somebody else's words."""
        if isinstance(error, TidegateError) or not self._is_transient(error):
            return error
        kind = DependencyTimeout if isinstance(error, TimeoutError) else DependencyError
        return kind(f"{self.name}: {type(error).__name__}: {error}")
