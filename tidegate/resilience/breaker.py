"""The circuit breaker on `pybreaker`: its states, counter and transitions, with admission and reporting of our own.

pybreaker's `call` cannot be used around the work itself (1.4.1; tests/unit/resilience/test_pybreaker_facts.py): it
holds its lock during the call, knows no asyncio, lets any number of probes in, counts cancellations, and asks
`datetime.now`. So:

1. admit    under our lock: closed passes; open is rejected until its time has come; half-open gives out probe permits
2. call     with no lock held, for functions and for awaitables alike
3. settle   under our lock: the permit comes back, and the outcome is reported to pybreaker as a call that does
            nothing or fails; but only if no transition happened in between (an answer from before says nothing of
            now)
4. tell     listeners, with no lock held, transitions in their order

What counts as a failure: transient errors (`is_transient`), nothing else. A record that is at fault, a fenced writer
or a bug in a handler is *ignored*: it neither opens the breaker, nor resets the count of failures, nor closes a
half-open one (the next call is then the probe). The same goes for cancellation and KeyboardInterrupt.

A probe that never returns loses its permit after `resetTimeoutSeconds`, as if it had failed then: the next call probes.
Should it come back after all, its answer still counts.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import ParamSpec, TypeVar

import pybreaker

from tidegate.clock import Clock
from tidegate.config import errorhandling
from tidegate.errors import CircuitOpen
from tidegate.resilience.core import STATES, ClockedStorage, Outage, Transitions, fail, succeed
from tidegate.resilience.listener import BreakerState, CallOutcome, Listener, Listeners
from tidegate.resilience.transient import is_transient, refuse_coroutine

P = ParamSpec("P")
T = TypeVar("T")

PROBE_POLL_MS = 1000  # when a probe will end is not known: who is rejected meanwhile asks again after a second at most


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A breaker at one moment.

    The four counters are totals since it was made; `opened_at` is seconds since the epoch.
    """

    name: str
    enabled: bool
    state: BreakerState
    consecutive_failures: int
    successes: int
    failures: int
    ignored: int
    rejected: int
    opened_at: float | None
    retry_after_ms: int


class CircuitBreaker:
    """Stops calling a dependency that keeps failing. One per dependency; safe under threads and tasks.

    With `enabled: false` every call passes and is counted, and the state stays closed.
    """

    def __init__(
        self,
        name: str,
        config: errorhandling.CircuitBreaker,
        *,
        clock: Clock,
        is_failure: Callable[[BaseException], bool] = is_transient,
        listeners: Listeners | None = None,
    ) -> None:
        self.name, self.config = name, config
        self._clock = clock
        self._is_failure = is_failure
        self._listeners = listeners or Listeners()
        self._lock = threading.Lock()
        self._storage = ClockedStorage(clock)
        self._transitions = Transitions()
        self._delivering = False
        self._core = pybreaker.CircuitBreaker(
            fail_max=config.failure_threshold,
            reset_timeout=config.reset_timeout_seconds,
            listeners=[self._transitions],
            state_storage=self._storage,
            name=name,
            throw_new_error_on_trip=False,
        )
        self._probes: dict[Permit, float] = {}  # a permit that is out, and when it was given (monotonic)
        self._counts = dict.fromkeys(CallOutcome, 0)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` of calls (`on_call`) and transitions (`on_transition`). Returns what ends that."""
        return self._listeners.add(listener)

    def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn`.

        Raises CircuitOpen without calling it when the breaker is open; else whatever `fn` raises, as it is.
        """
        with Permit(self):
            result = fn(*args, **kwargs)
            refuse_coroutine(fn, result)
            return result

    async def call_async(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`, for anything whose result can be awaited."""
        with Permit(self):
            return await fn(*args, **kwargs)

    @property
    def state(self) -> BreakerState:
        """The state as of now: reads half_open as soon as the reset timeout has passed, with or without a call."""
        with self._lock:
            return self._state(self._clock.monotonic())

    @property
    def retry_after_ms(self) -> int:
        """Milliseconds until a call would be let through; 0 when it would be now."""
        with self._lock:
            return self._retry_after_ms(self._clock.monotonic())

    def snapshot(self) -> BreakerSnapshot:
        """All that there is to see, of one moment."""
        with self._lock:
            now = self._clock.monotonic()
            state = self._state(now)
            opened = self._storage.opened_at
            return BreakerSnapshot(
                name=self.name,
                enabled=self.config.enabled,
                state=state,
                consecutive_failures=self._core.fail_counter,
                successes=self._counts[CallOutcome.SUCCESS],
                failures=self._counts[CallOutcome.FAILURE],
                ignored=self._counts[CallOutcome.IGNORED],
                rejected=self._counts[CallOutcome.REJECTED],
                opened_at=None if opened is None or state is BreakerState.CLOSED else opened.timestamp(),
                retry_after_ms=self._retry_after_ms(now),
            )

    def _state(self, now: float) -> BreakerState:
        state = STATES[self._core.current_state]
        if state is BreakerState.OPEN and now >= self._due():
            return BreakerState.HALF_OPEN
        return state

    def _due(self) -> float:
        """When an open breaker may be probed (monotonic seconds)."""
        return self._storage.opened_monotonic + self.config.reset_timeout_seconds

    def _retry_after_ms(self, now: float) -> int:
        state = self._state(now)
        if state is BreakerState.OPEN:
            return max(1, math.ceil(round((self._due() - now) * 1000, 3)))
        if state is BreakerState.HALF_OPEN and not self._permit_free(now):
            lease_left = min(self._probes.values()) + self.config.reset_timeout_seconds - now
            return min(PROBE_POLL_MS, max(1, math.ceil(lease_left * 1000)))
        return 0

    def _permit_free(self, now: float) -> bool:
        """Whether another probe may go. Permits of probes that never came back are taken from them here."""
        lease = self.config.reset_timeout_seconds
        for permit in [permit for permit, given in self._probes.items() if now - given >= lease]:
            del self._probes[permit]
        return len(self._probes) < self.config.half_open_max_attempts

    def _admit(self, permit: Permit) -> None:
        """Let a call through or raise CircuitOpen."""
        if not self.config.enabled:
            return
        retry_after_ms = 0
        with self._lock:
            if self._core.current_state != pybreaker.STATE_CLOSED:
                now = self._clock.monotonic()
                retry_after_ms = self._retry_after_ms(now)
                if retry_after_ms:
                    self._counts[CallOutcome.REJECTED] += 1
                else:
                    if self._core.current_state == pybreaker.STATE_OPEN:
                        self._core.half_open()
                    self._probes[permit] = now
            permit.epoch = self._transitions.epoch
        self._deliver()
        if retry_after_ms:
            self._listeners.tell(lambda listener: listener.on_call(self, CallOutcome.REJECTED))
            raise CircuitOpen(self.name, retry_after_ms)

    def _settle(self, permit: Permit, error: BaseException | None) -> None:
        """Take the permit back and report how the call ended."""
        if error is None:
            outcome = CallOutcome.SUCCESS
        else:
            outcome = CallOutcome.FAILURE if self._is_failure(error) else CallOutcome.IGNORED
        with self._lock:
            self._probes.pop(permit, None)
            self._counts[outcome] += 1
            if self.config.enabled and permit.epoch == self._transitions.epoch:
                self._report(outcome)
        self._deliver()
        self._listeners.tell(lambda listener: listener.on_call(self, outcome))

    def _report(self, outcome: CallOutcome) -> None:
        """Tell pybreaker.

        A stand-in fails in the real error's place, so that the real one keeps its own traceback and cause.
        """
        if outcome is CallOutcome.SUCCESS:
            self._core.call(succeed)
        elif outcome is CallOutcome.FAILURE:
            try:
                self._core.call(fail)
            except Outage:
                return  # pybreaker counted it and raised it again

    def _deliver(self) -> None:
        """Tell transitions in their order, whoever caused them: one thread delivers, the others leave theirs to it."""
        while self._transitions.queue:
            with self._lock:
                if self._delivering or not self._transitions.queue:
                    return
                self._delivering = True
                before, after = self._transitions.queue.popleft()
            try:
                self._tell_transition(before, after)
            finally:
                self._delivering = False

    def _tell_transition(self, before: BreakerState, after: BreakerState) -> None:
        self._listeners.tell(lambda listener: listener.on_transition(self, before, after))


class Permit:
    """Leave for one call: `with Permit(breaker): …` raises CircuitOpen, or reports however the block ended."""

    __slots__ = ("_breaker", "epoch")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self.epoch = 0

    def __enter__(self) -> None:
        self._breaker._admit(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._breaker._settle(self, error)
