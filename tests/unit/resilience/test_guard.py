"""The guard: retry( breaker( timeout( call ))) and what comes out of it."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from tidegate.clock import ManualClock, SystemClock
from tidegate.config.errorhandling import ErrorHandling
from tidegate.errors import CircuitOpen, DependencyError, DependencyTimeout, SinkRecordError, StoreUnavailable
from tidegate.resilience import BreakerState, Guard, Registry, breakers

AWAY = StoreUnavailable("connection refused")


def make(clock: ManualClock, **options: Any) -> Guard:
    block = {
        "retry": {"maxAttempts": 4, "initialDelayMs": 1000, "jitter": False, **options.pop("retry", {})},
        "circuitBreaker": {"failureThreshold": 5, "resetTimeoutSeconds": 60, **options.pop("breaker", {})},
    }

    async def sleep_async(seconds: float) -> None:
        clock.advance(seconds)

    return Guard(
        "postgres",
        ErrorHandling.model_validate(block),
        clock=clock,
        rng=random.Random(1),
        registry=options.pop("registry", Registry()),
        sleep=clock.advance,
        async_sleep=sleep_async,
        **options,
    )


class Dependency:
    """Counts calls, and fails with `error` while there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.calls = error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return "done"

    async def ask(self) -> str:
        return self()


def sync_call(guard: Guard, dependency: Dependency) -> str:
    return guard.call(dependency)


def async_call(guard: Guard, dependency: Dependency) -> str:
    return asyncio.run(guard.call_async(dependency.ask))


both = pytest.mark.parametrize("call", [sync_call, async_call], ids=["sync", "async"])
Call = Callable[[Guard, Dependency], str]


@both
def test_result(call: Call) -> None:
    """A call that works costs one attempt and gives its result."""
    dependency = Dependency()
    assert call(make(ManualClock()), dependency) == "done"
    assert dependency.calls == 1


@both
def test_spent_attempts(call: Call) -> None:
    """When the attempts are spent, the dependency's error itself comes out; the breaker counted each attempt."""
    guard, dependency = make(ManualClock()), Dependency(AWAY)
    with pytest.raises(StoreUnavailable) as caught:
        call(guard, dependency)
    assert caught.value is AWAY
    assert dependency.calls == 4
    assert guard.breaker.snapshot().consecutive_failures == 4


@both
def test_foreign_outage_is_wrapped(call: Call) -> None:
    """An outage in somebody else's words comes out as a DependencyError, the real error its cause."""
    real = ConnectionResetError(104, "reset by peer")
    with pytest.raises(DependencyError, match=r"postgres: ConnectionResetError: .*reset by peer") as caught:
        call(make(ManualClock()), Dependency(real))
    assert caught.value.__cause__ is real


@both
def test_foreign_timeout_is_a_dependency_timeout(call: Call) -> None:
    """A TimeoutError of the dependency's own comes out as a DependencyTimeout."""
    with pytest.raises(DependencyTimeout, match="postgres: TimeoutError: no answer"):
        call(make(ManualClock()), Dependency(TimeoutError("no answer")))


@both
def test_named_errors_are_outages(call: Call) -> None:
    """Errors named as transient are retried, count for the breaker, and come out as DependencyErrors."""

    class ApiBusy(Exception): ...

    guard, dependency = make(ManualClock(), transient=(ApiBusy,)), Dependency(ApiBusy("429"))
    with pytest.raises(DependencyError, match="ApiBusy: 429"):
        call(guard, dependency)
    assert (dependency.calls, guard.breaker.snapshot().failures) == (4, 4)


@both
@pytest.mark.parametrize("error", [SinkRecordError("too long", rows=(3,)), ValueError("a bug")], ids=["record", "bug"])
def test_other_errors_pass_untouched(call: Call, error: Exception) -> None:
    """A record's error and a bug come out at once, the very same object, and say nothing about the dependency."""
    guard, dependency = make(ManualClock()), Dependency(error)
    for _ in range(10):
        with pytest.raises(type(error)) as caught:
            call(guard, dependency)
        assert caught.value is error
    assert dependency.calls == 10
    assert guard.breaker.state is BreakerState.CLOSED


@both
def test_open_breaker_is_not_retried(call: Call) -> None:
    """While the breaker is open a call is rejected at once, without a wait."""
    clock = ManualClock()
    guard, dependency = make(clock, breaker={"failureThreshold": 2}), Dependency(AWAY)
    with pytest.raises(StoreUnavailable):
        call(guard, dependency)
    before = clock.time()
    with pytest.raises(CircuitOpen):
        call(guard, dependency)
    assert (dependency.calls, clock.time()) == (2, before)


@both
def test_no_wait_for_a_breaker_that_stays_open(call: Call) -> None:
    """The attempt that opens the breaker is the last: its real error comes out, without a useless wait."""
    clock = ManualClock()
    dependency = Dependency(AWAY)
    with pytest.raises(StoreUnavailable) as caught:
        call(make(clock, breaker={"failureThreshold": 1}), dependency)
    assert caught.value is AWAY
    assert (dependency.calls, clock.time()) == (1, ManualClock().time())


@both
def test_waits_for_a_breaker_that_will_be_probed(call: Call) -> None:
    """When the breaker can be probed before the wait is over, the next attempt is that probe."""
    clock = ManualClock()
    guard = make(clock, breaker={"failureThreshold": 1, "resetTimeoutSeconds": 0.5})
    with pytest.raises(StoreUnavailable):
        call(guard, Dependency(AWAY))
    assert guard.breaker.snapshot().failures == 4


def test_timeout_per_attempt() -> None:
    """Each asynchronous attempt that takes longer than its limit is cut off, counts as a failure and is tried again."""
    guard = make(ManualClock(), timeout_ms=5, retry={"maxAttempts": 2})
    started: list[int] = []

    async def hang() -> None:
        started.append(1)
        await asyncio.Event().wait()

    with pytest.raises(DependencyTimeout, match="postgres gave no answer within 5 ms") as caught:
        asyncio.run(guard.call_async(hang))
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert len(started) == 2
    assert guard.breaker.snapshot().failures == 2


def test_timeout_from_the_configuration() -> None:
    """Without a limit of its own a guard takes `retry.attemptTimeoutMs`."""
    assert make(ManualClock(), retry={"attemptTimeoutMs": 1234}).timeout_ms == 1234
    assert make(ManualClock(), retry={"attemptTimeoutMs": 1234}, timeout_ms=10).timeout_ms == 10


def test_within_the_limit() -> None:
    """An attempt within its limit is untouched, its own TimeoutError included."""
    guard = make(ManualClock(), timeout_ms=10_000, retry={"maxAttempts": 1})
    assert asyncio.run(guard.call_async(Dependency().ask)) == "done"
    with pytest.raises(DependencyTimeout, match="TimeoutError: lock not available"):
        asyncio.run(guard.call_async(Dependency(TimeoutError("lock not available")).ask))


def test_cancellation_passes() -> None:
    """A cancelled call ends as cancelled: not as a timeout, not as a failure of the dependency."""
    guard = make(ManualClock(), timeout_ms=60_000)

    async def run() -> None:
        inside = asyncio.Event()

        async def hang() -> None:
            inside.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(guard.call_async(hang))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert guard.breaker.snapshot().consecutive_failures == 0


def test_arguments_pass() -> None:
    """Positional and keyword arguments reach the callee, sync and async."""

    def add(a: int, *, b: int) -> int:
        return a + b

    async def add_async(a: int, *, b: int) -> int:
        return a + b

    guard = make(ManualClock(), timeout_ms=1000)
    assert guard.call(add, 1, b=2) == 3
    assert asyncio.run(guard.call_async(add_async, 1, b=2)) == 3


def test_registry_lists_breakers_in_use() -> None:
    """The registry lists each guard's breaker for as long as somebody holds it."""
    registry = Registry()
    guard = make(ManualClock(), registry=registry)
    assert registry.breakers() == [guard.breaker]
    del guard
    gc.collect()
    assert registry.breakers() == []


def test_process_registry() -> None:
    """Unless told otherwise a guard registers with the process."""
    guard = Guard("process-wide", ErrorHandling())
    assert guard.breaker in breakers()


@pytest.mark.slow
def test_overhead() -> None:
    """A guarded call costs less than 20 µs above the bare call: spread over a batch, far below 1 µs per record."""
    guard = Guard("fast", ErrorHandling(), clock=SystemClock(), registry=Registry())

    def best(call: Callable[[], object]) -> float:
        rounds = []
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(500):
                call()
            rounds.append((time.perf_counter() - began) / 500)
        return min(rounds)

    assert best(lambda: guard.call(int)) < 20e-6
