"""The retry policy: what is retried, when, how long, and what comes out."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.clock import ManualClock
from tidegate.config.errorhandling import Retry
from tidegate.errors import CircuitOpen, DecodeError, StoreFenced, StoreUnavailable
from tidegate.resilience import Listener, RetryKind, RetryPolicy

AWAY = StoreUnavailable("connection refused")


class Slept:
    """Sleeps by moving the clock, and writes down for how long."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


def make(slept: Slept | None = None, *, seed: int = 7, **config: Any) -> RetryPolicy:
    slept = slept or Slept(ManualClock())
    retry_on = config.pop("retry_on", ())
    return RetryPolicy(
        Retry.model_validate({"initialDelayMs": 1000, "jitter": False, **config}),
        clock=slept.clock,
        rng=random.Random(seed),
        sleep=slept.sleep,
        async_sleep=slept.sleep_async,
        retry_on=retry_on,
        target="postgres",
    )


class Flaky:
    """Fails with each of `errors` in turn, then returns "done"."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


class AsyncFlaky(Flaky):
    """The same, as an object with an async __call__."""

    async def __call__(self) -> str:  # type: ignore[override]  # the same double, for async code
        return super().__call__()


class Heard(Listener):
    def __init__(self) -> None:
        self.retries: list[tuple[str, int, float, BaseException]] = []
        self.kinds: list[RetryKind] = []

    def on_retry(self, target: str, attempt: int, wait: float, error: BaseException) -> None:
        self.retries.append((target, attempt, wait, error))

    def on_finish(self, target: str, kind: RetryKind) -> None:
        self.kinds.append(kind)


CALLS: list[Callable[[RetryPolicy, Flaky], object]] = [
    lambda policy, flaky: policy.call(flaky),
    lambda policy, flaky: policy.call(functools.partial(flaky)),
    lambda policy, flaky: policy.call(lambda: flaky()),
    lambda policy, flaky: asyncio.run(policy.call_async(awaitable(flaky))),
    lambda policy, flaky: asyncio.run(policy.call_async(functools.partial(awaitable(flaky)))),
    lambda policy, flaky: asyncio.run(policy.call_async(async_object(flaky))),
]
CALL_IDS = ["object", "partial", "function", "coroutine", "coroutine-partial", "async-object"]
every_way = pytest.mark.parametrize("call", CALLS, ids=CALL_IDS)


def awaitable(flaky: Flaky) -> Callable[[], Awaitable[str]]:
    async def run() -> str:
        return flaky()

    return run


def async_object(flaky: Flaky) -> Callable[[], Awaitable[str]]:
    target = AsyncFlaky()
    target.errors = flaky.errors
    return target


@every_way
def test_succeeds_after_failures(call: Callable[[RetryPolicy, Flaky], object]) -> None:
    """Functions, partials, objects and their asynchronous kin are all tried again until they succeed."""
    slept = Slept(ManualClock())
    assert call(make(slept), Flaky(AWAY, OSError("reset"), TimeoutError("slow"))) == "done"
    assert slept.waits == [1, 2, 4]


@every_way
def test_last_error_comes_out(call: Callable[[RetryPolicy, Flaky], object]) -> None:
    """When the attempts are spent the last error itself comes out, with its own cause."""
    last = StoreUnavailable("shutting down")
    last.__cause__ = ConnectionResetError(104, "reset by peer")
    with pytest.raises(StoreUnavailable) as caught:
        call(make(maxAttempts=3), Flaky(AWAY, AWAY, last))
    assert caught.value is last
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@every_way
@pytest.mark.parametrize(
    "error",
    [DecodeError("not JSON"), StoreFenced("moved on"), CircuitOpen("postgres", 1000), ValueError("a bug")],
    ids=lambda error: type(error).__name__,
)
def test_not_retried(call: Callable[[RetryPolicy, Flaky], object], error: Exception) -> None:
    """A record's error, a fenced writer, an open breaker and a bug come out at the first attempt."""
    slept = Slept(ManualClock())
    with pytest.raises(type(error)) as caught:
        call(make(slept, retry_on=(CircuitOpen,)), Flaky(error))
    assert caught.value is error
    assert slept.waits == []


def test_named_errors_are_retried() -> None:
    """Errors that the pipeline names as outages are retried like tidegate's own."""

    class ApiBusy(Exception): ...

    assert make(retry_on=(ApiBusy,)).call(Flaky(ApiBusy(), ApiBusy())) == "done"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1)], ids=["interrupt", "exit"])
def test_a_request_to_stop_is_never_retried(stop: BaseException) -> None:
    """An interrupt ends the attempts, even where every error is named as an outage."""
    flaky = Flaky(stop)
    with pytest.raises(type(stop)):
        make(retry_on=(BaseException,)).call(flaky)
    assert flaky.calls == 1


def test_open_breaker_names_what_opened_it() -> None:
    """A breaker that opens between two attempts comes out with the last real error as its cause."""
    with pytest.raises(CircuitOpen) as caught:
        make().call(Flaky(AWAY, CircuitOpen("postgres", 60_000)))
    assert caught.value.__cause__ is AWAY


def test_total_time_with_slow_calls() -> None:
    """A call that alone takes longer than the total limit is made once, unlike with backoff's max_time."""
    slept = Slept(ManualClock())
    calls: list[float] = []

    def slow() -> None:
        calls.append(slept.clock.time())
        slept.clock.advance(0.3)
        raise AWAY

    with pytest.raises(StoreUnavailable):
        make(slept, initialDelayMs=10, maxTotalMs=100).call(slow)
    assert len(calls) == 1


@given(
    total=st.integers(1, 20_000),
    duration=st.floats(0, 5),
    initial=st.integers(0, 3000),
    jitter=st.booleans(),
)
def test_total_time_is_held(total: int, duration: float, initial: int, jitter: bool) -> None:
    """No attempt begins later than the total limit after the first, and no wait is slept that ends in no attempt."""
    slept = Slept(ManualClock(0))
    started: list[float] = []

    def slow() -> None:
        started.append(slept.clock.time())
        slept.clock.advance(duration)
        raise AWAY

    policy = make(slept, initialDelayMs=initial, maxTotalMs=total, maxAttempts=20, jitter=jitter)
    with pytest.raises(StoreUnavailable):
        policy.call(slow)
    assert started[-1] <= total / 1000 + 1e-9
    assert len(slept.waits) == len(started) - 1


def test_cancelled_while_waiting() -> None:
    """A cancellation during a wait ends the call at once, without another attempt."""

    async def run() -> int:
        flaky = AsyncFlaky(AWAY, AWAY)
        policy = RetryPolicy(Retry(initial_delay_ms=60_000), clock=ManualClock(), rng=random.Random(1))
        task = asyncio.create_task(policy.call_async(flaky))
        await asyncio.sleep(0.001)  # the first attempt fails, the wait of a minute begins
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return flaky.calls

    assert asyncio.run(run()) == 1


def test_blocking_wait_on_an_event_loop_is_refused() -> None:
    """A synchronous retry on an event loop's thread is refused with the way out, the real error kept as the cause."""
    policy = RetryPolicy(Retry(), clock=ManualClock(), rng=random.Random(1), target="postgres")

    async def run() -> None:
        policy.call(Flaky(AWAY))

    with pytest.raises(RuntimeError, match=r"postgres: .*use call_async") as caught:
        asyncio.run(run())
    assert caught.value.__context__ is AWAY


def test_async_function_through_call_is_refused() -> None:
    """`call` refuses an asynchronous function instead of taking its coroutine for a result."""
    with pytest.raises(TypeError, match="use call_async"):
        asyncio.run(make().call(AsyncFlaky()))


def test_listener_hears_attempts() -> None:
    """A listener hears of each failed attempt with its number, the wait and the error, and of how the call ended."""
    policy, heard = make(), Heard()
    leave = policy.listen(heard)
    policy.call(Flaky(AWAY, AWAY))
    policy.call(Flaky())
    with pytest.raises(DecodeError):
        policy.call(Flaky(DecodeError("not JSON")))
    with pytest.raises(StoreUnavailable):
        policy.call(Flaky(*[AWAY] * 5))
    leave()
    policy.call(Flaky(AWAY))
    assert heard.retries[:2] == [("postgres", 1, 1.0, AWAY), ("postgres", 2, 2.0, AWAY)]
    assert [kind.value for kind in heard.kinds] == [
        "successful_with_retry", "successful_without_retry", "failed_without_retry", "failed_with_retry",
    ]  # fmt: skip


def test_listener_that_raises() -> None:
    """A listener that raises replaces neither the result nor the real error."""

    class Broken(Listener):
        def on_retry(self, target: str, attempt: int, wait: float, error: BaseException) -> None:
            raise RuntimeError("a bug in the listener")

        def on_finish(self, target: str, kind: RetryKind) -> None:
            raise RuntimeError("a bug in the listener")

    policy = make(maxAttempts=2)
    policy.listen(Broken())
    assert policy.call(Flaky(AWAY)) == "done"
    with pytest.raises(StoreUnavailable):
        policy.call(Flaky(AWAY, AWAY))


def test_one_policy_for_many_functions() -> None:
    """One policy serves many functions and threads at once, with one count per call and one event per retry."""
    policy, heard = make(maxAttempts=4), Heard()
    policy.listen(heard)
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(policy.call(Flaky(AWAY, AWAY, AWAY)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["done"] * 8
    assert len(heard.retries) == 24


def test_a_single_attempt() -> None:
    """Strategy `none` means a single attempt, whatever maxAttempts says."""
    flaky = Flaky(AWAY)
    with pytest.raises(StoreUnavailable):
        make(strategy="none", maxAttempts=5).call(flaky)
    assert flaky.calls == 1
