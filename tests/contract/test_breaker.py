"""One suite for the circuit breaker, called from plain code and from asyncio."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

import pytest

from tidegate.clock import ManualClock
from tidegate.config.errorhandling import CircuitBreaker as Config
from tidegate.errors import CircuitOpen, SinkRecordError, StoreFenced, StoreUnavailable
from tidegate.resilience import BreakerState, CircuitBreaker, Permit

AWAY = StoreUnavailable("connection refused")


class BreakerContract(ABC):
    """What holds however the breaker is called."""

    @abstractmethod
    def call(self, breaker: CircuitBreaker, body: Callable[[], object]) -> object:
        """Call `body` through `breaker`."""

    def state(self, breaker: CircuitBreaker) -> BreakerState:
        return breaker.state

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def breaker(self, clock: ManualClock) -> CircuitBreaker:
        return self.make(clock)

    def make(self, clock: ManualClock, **config: object) -> CircuitBreaker:
        settings = {"failureThreshold": 3, "resetTimeoutSeconds": 60, **config}
        return CircuitBreaker("postgres", Config.model_validate(settings), clock=clock)

    def fail(self, breaker: CircuitBreaker, error: BaseException = AWAY, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(type(error)) as caught:
                self.call(breaker, raiser(error))
            assert caught.value is error

    def test_result_passes(self, breaker: CircuitBreaker) -> None:
        """A call that succeeds returns its result and is counted."""
        assert self.call(breaker, lambda: 42) == 42
        assert breaker.snapshot().successes == 1

    def test_opens_at_threshold(self, breaker: CircuitBreaker) -> None:
        """The breaker opens with the failure that reaches the threshold, and not before."""
        self.fail(breaker, times=2)
        assert self.state(breaker) is BreakerState.CLOSED
        self.fail(breaker)
        assert self.state(breaker) is BreakerState.OPEN

    def test_real_error_on_trip(self, breaker: CircuitBreaker) -> None:
        """The call that trips the breaker raises its own error, with its own traceback and cause."""
        cause = ConnectionRefusedError(111, "refused")

        def body() -> None:
            raise AWAY from cause

        self.fail(breaker, times=2)
        with pytest.raises(StoreUnavailable) as caught:
            self.call(breaker, body)
        assert caught.value is AWAY
        assert caught.value.__cause__ is cause
        assert "pybreaker" not in "".join(str(entry.path) for entry in caught.traceback)

    def test_rejects_without_calling(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """An open breaker rejects without calling, and says after how many milliseconds it would let a call through."""
        self.fail(breaker, times=3)
        clock.advance(45.5)
        called: list[int] = []
        with pytest.raises(CircuitOpen) as caught:
            self.call(breaker, lambda: called.append(1))
        assert caught.value.retry_after_ms == 14_500
        assert str(caught.value) == "circuit breaker 'postgres' is open; next try in 14500 ms"
        assert not called
        assert breaker.snapshot().rejected == 1

    def test_waiting_as_told_is_enough(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """A caller that waits for as long as it was told gets through."""
        self.fail(breaker, times=3)
        clock.advance(0.0123)
        clock.advance(breaker.retry_after_ms / 1000)
        assert breaker.retry_after_ms == 0
        assert self.call(breaker, lambda: "through") == "through"

    def test_reads_half_open_in_time(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """The state reads half_open as soon as the reset timeout has passed, without any call."""
        self.fail(breaker, times=3)
        clock.advance(59.999)
        assert self.state(breaker) is BreakerState.OPEN
        clock.advance(0.001)
        assert self.state(breaker) is BreakerState.HALF_OPEN
        assert breaker.snapshot().state is BreakerState.HALF_OPEN

    def test_probe_closes(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """A probe that succeeds closes the breaker, with a fresh count of failures."""
        self.fail(breaker, times=3)
        clock.advance(60)
        self.call(breaker, lambda: None)
        assert self.state(breaker) is BreakerState.CLOSED
        self.fail(breaker, times=2)
        assert self.state(breaker) is BreakerState.CLOSED

    def test_probe_reopens(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """A probe that fails opens the breaker for another full reset timeout."""
        self.fail(breaker, times=3)
        clock.advance(75)
        self.fail(breaker)
        assert self.state(breaker) is BreakerState.OPEN
        assert breaker.retry_after_ms == 60_000

    def test_success_resets_count(self, breaker: CircuitBreaker) -> None:
        """Only failures in a row count: a success in between starts the count again."""
        self.fail(breaker, times=2)
        self.call(breaker, lambda: None)
        self.fail(breaker, times=2)
        assert self.state(breaker) is BreakerState.CLOSED

    @pytest.mark.parametrize(
        "error",
        [
            SinkRecordError("value too long", rows=(3,)),
            StoreFenced("the partition row has moved on"),
            ValueError("a bug in a handler"),
            KeyboardInterrupt(),
            SystemExit(3),
            asyncio.CancelledError(),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_ignored_errors(self, breaker: CircuitBreaker, clock: ManualClock, error: BaseException) -> None:
        """A record's error, fencing, a bug, a cancellation and an interrupt neither count nor reset nor close."""
        self.fail(breaker, times=2)
        self.fail(breaker, error, times=5)
        assert self.state(breaker) is BreakerState.CLOSED
        assert breaker.snapshot().consecutive_failures == 2
        self.fail(breaker)
        assert self.state(breaker) is BreakerState.OPEN
        clock.advance(60)
        self.fail(breaker, error)
        assert self.state(breaker) is BreakerState.HALF_OPEN
        assert breaker.snapshot().ignored == 6

    def test_ignored_probe_returns_permit(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """A probe that ends without an answer gives its permit back at once: the next call is the probe."""
        self.fail(breaker, times=3)
        clock.advance(60)
        self.fail(breaker, asyncio.CancelledError(), times=3)
        assert breaker.retry_after_ms == 0
        self.call(breaker, lambda: None)
        assert self.state(breaker) is BreakerState.CLOSED

    @pytest.mark.parametrize("probes", [1, 3])
    def test_half_open_permits(self, clock: ManualClock, probes: int) -> None:
        """In half-open at most `halfOpenMaxAttempts` calls are in flight at once; the rest is rejected."""
        breaker = self.make(clock, halfOpenMaxAttempts=probes)
        self.fail(breaker, times=3)
        clock.advance(60)
        permits = [Permit(breaker) for _ in range(probes)]
        for permit in permits:
            permit.__enter__()
        for _ in range(10):
            with pytest.raises(CircuitOpen) as caught:
                self.call(breaker, lambda: pytest.fail("one probe too many"))
            assert 0 < caught.value.retry_after_ms <= 1000
        permits[0].__exit__(None, None, None)
        assert self.state(breaker) is BreakerState.CLOSED

    def test_hung_probe_times_out(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """A probe that never returns blocks the breaker for one reset timeout, no longer."""
        self.fail(breaker, times=3)
        clock.advance(60)
        hung = Permit(breaker)
        hung.__enter__()
        clock.advance(59.5)
        assert breaker.retry_after_ms == 500
        clock.advance(0.5)
        assert self.call(breaker, lambda: "probed") == "probed"
        assert self.state(breaker) is BreakerState.CLOSED

    def test_hung_probe_that_comes_back_counts(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """A probe slower than the reset timeout still closes the breaker when it succeeds in the end."""
        self.fail(breaker, times=3)
        clock.advance(60)
        with Permit(breaker):
            clock.advance(300)
        assert self.state(breaker) is BreakerState.CLOSED

    def test_late_answers_say_nothing(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """A call from before the breaker opened neither closes it nor lengthens its wait, however it ends."""
        slow_success, slow_failure = Permit(breaker), Permit(breaker)
        slow_success.__enter__()
        slow_failure.__enter__()
        self.fail(breaker, times=3)
        clock.advance(30)
        slow_failure.__exit__(StoreUnavailable, AWAY, None)
        assert breaker.retry_after_ms == 30_000
        clock.advance(30)
        slow_success.__exit__(None, None, None)
        assert self.state(breaker) is BreakerState.HALF_OPEN

    def test_disabled_passes_and_counts(self, clock: ManualClock) -> None:
        """A disabled breaker lets every call through, stays closed, and counts."""
        breaker = self.make(clock, enabled=False)
        self.fail(breaker, times=10)
        self.call(breaker, lambda: None)
        seen = breaker.snapshot()
        assert (seen.enabled, seen.state, seen.failures, seen.successes) == (False, BreakerState.CLOSED, 10, 1)

    def test_snapshot(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        """A snapshot of an open breaker says since when it is open (seconds since the epoch) and for how long."""
        self.fail(breaker, times=3)
        opened = clock.time()
        clock.advance(20)
        seen = breaker.snapshot()
        assert (seen.name, seen.opened_at, seen.retry_after_ms, seen.failures) == ("postgres", opened, 40_000, 3)


class TestSyncCalls(BreakerContract):
    """Through `call`."""

    def call(self, breaker: CircuitBreaker, body: Callable[[], object]) -> object:
        return breaker.call(body)

    def test_coroutine_is_refused(self, breaker: CircuitBreaker) -> None:
        """`call` refuses an asynchronous function: it would count a coroutine that nobody awaits as a success."""

        async def body() -> None: ...

        with pytest.raises(TypeError, match="use call_async"):
            self.call(breaker, body)
        assert breaker.snapshot().successes == 0


class TestAsyncCalls(BreakerContract):
    """Through `call_async`."""

    def call(self, breaker: CircuitBreaker, body: Callable[[], object]) -> object:
        async def awaited() -> object:
            await asyncio.sleep(0)
            return body()

        async def run() -> object:
            # A task of its own would swallow KeyboardInterrupt's way out; a coroutine driven by hand shows the
            # breaker alone.
            return await breaker.call_async(awaited)

        return drive(run())


def drive(coroutine: object) -> object:
    """Run a coroutine that only ever yields to the loop, without one: what it raises comes out as it is."""
    try:
        while True:
            coroutine.send(None)  # type: ignore[attr-defined]  # a coroutine, by how it was made
    except StopIteration as stop:
        return stop.value


def raiser(error: BaseException) -> Callable[[], object]:
    def body() -> object:
        raise error

    return body
