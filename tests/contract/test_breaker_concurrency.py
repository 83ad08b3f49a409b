"""The circuit breaker under threads, tasks and every order of events."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tidegate.clock import ManualClock, SystemClock
from tidegate.config.errorhandling import CircuitBreaker as Config
from tidegate.errors import CircuitOpen, DecodeError, StoreUnavailable
from tidegate.resilience import BreakerState, CircuitBreaker, Listener, Permit

AWAY = StoreUnavailable("connection refused")


def opened(clock: ManualClock, **config: object) -> CircuitBreaker:
    """A breaker that has just opened."""
    breaker = CircuitBreaker("postgres", Config.model_validate({"failureThreshold": 1, **config}), clock=clock)
    with pytest.raises(StoreUnavailable):
        breaker.call(fail)
    return breaker


def fail() -> None:
    raise AWAY


def test_lock_is_not_held_during_the_call() -> None:
    """Guarded calls run at the same time: five threads meet at a barrier inside their calls."""
    breaker = CircuitBreaker("postgres", Config(), clock=SystemClock())
    inside = threading.Barrier(5, timeout=5)
    threads = [threading.Thread(target=breaker.call, args=(inside.wait,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert breaker.snapshot().successes == 5


def test_tasks_run_at_the_same_time() -> None:
    """Twenty tasks are inside their guarded calls at once."""
    breaker = CircuitBreaker("postgres", Config(), clock=SystemClock())

    async def run() -> None:
        inside = asyncio.Barrier(20)
        async with asyncio.timeout(5):
            await asyncio.gather(*(breaker.call_async(inside.wait) for _ in range(20)))

    asyncio.run(run())
    assert breaker.snapshot().successes == 20


@pytest.mark.parametrize("probes", [1, 3])
def test_burst_in_half_open(probes: int) -> None:
    """Of ten tasks at once on a half-open breaker exactly `halfOpenMaxAttempts` get through."""
    clock = ManualClock()
    breaker = opened(clock, halfOpenMaxAttempts=probes)
    clock.advance(60)
    called: list[int] = []

    async def call() -> None:
        called.append(1)
        await asyncio.sleep(0.001)

    async def run() -> list[object]:
        return await asyncio.gather(*(breaker.call_async(call) for _ in range(10)), return_exceptions=True)

    results = asyncio.run(run())
    assert len(called) == probes
    assert sum(isinstance(result, CircuitOpen) for result in results) == 10 - probes
    assert breaker.state is BreakerState.CLOSED


def test_cancelled_probe_gives_its_permit_back() -> None:
    """A task that is cancelled in its probe leaves the breaker half-open and free for the next probe."""
    clock = ManualClock()
    breaker = opened(clock)
    clock.advance(60)

    async def run() -> None:
        inside = asyncio.Event()

        async def hang() -> None:
            inside.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(breaker.call_async(hang))
        await inside.wait()
        assert breaker.retry_after_ms > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert (breaker.state, breaker.retry_after_ms) == (BreakerState.HALF_OPEN, 0)


def test_many_threads_at_once() -> None:
    """Under eight threads every call is counted once, and transitions are told as one unbroken chain."""
    breaker = CircuitBreaker(
        "postgres",
        Config(failure_threshold=2, reset_timeout_seconds=0.0005, half_open_max_attempts=2),
        clock=SystemClock(),
    )
    chain: list[tuple[BreakerState, BreakerState]] = []

    class Heard(Listener):
        def on_transition(self, source: CircuitBreaker, before: BreakerState, after: BreakerState) -> None:
            chain.append((before, after))

    breaker.listen(Heard())

    def hammer(seed: int) -> None:
        rng = random.Random(seed)
        outcomes: list[Callable[[], object]] = [fail, fail, reject, int]
        for _ in range(300):
            try:
                breaker.call(rng.choice(outcomes))
            except (StoreUnavailable, DecodeError, CircuitOpen):
                continue

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = breaker.snapshot()
    assert seen.successes + seen.failures + seen.ignored + seen.rejected == 2400
    assert chain[0] == (BreakerState.CLOSED, BreakerState.OPEN)
    assert all(left[1] == right[0] for left, right in pairwise(chain))


def reject() -> None:
    raise DecodeError("not JSON")


@dataclass
class InFlight:
    """A call that has begun: its permit, in which era of the model it began, and since when if it is a probe."""

    permit: Permit
    era: int
    given: float | None


class BreakerMachine(RuleBasedStateMachine):
    """The breaker against a model in plain Python: calls overlap, end in any order or never, and time passes."""

    THRESHOLD, RESET, PROBES = 3, 60, 2
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(0)
        config = Config(
            failure_threshold=self.THRESHOLD,
            reset_timeout_seconds=self.RESET,
            half_open_max_attempts=self.PROBES,
        )
        self.breaker = CircuitBreaker("model", config, clock=self.clock)
        self.state, self.era, self.failures, self.opened = "closed", 0, 0, 0.0
        self.probes: list[InFlight] = []

    def move(self, state: str) -> None:
        self.state = state
        self.era += 1
        self.failures = 0 if state == "closed" else self.failures

    def living_probes(self) -> list[InFlight]:
        return [p for p in self.probes if p.given is not None and self.clock.time() - p.given < self.RESET]

    def visible_state(self) -> str:
        due = self.state == "open" and self.clock.time() >= self.opened + self.RESET
        return "half_open" if due else self.state

    @rule(target=calls)
    def begin(self) -> InFlight | None:
        """Begin a call; the model knows whether it may."""
        state = self.visible_state()
        may = state == "closed" or (state == "half_open" and len(self.living_probes()) < self.PROBES)
        permit = Permit(self.breaker)
        if not may:
            with pytest.raises(CircuitOpen):
                permit.__enter__()
            return None
        permit.__enter__()
        if self.state == "open":
            self.move("half_open")
        call = InFlight(permit, self.era, self.clock.time() if state == "half_open" else None)
        if call.given is not None:
            self.probes.append(call)
        return call

    @rule(call=consumes(calls), outcome=st.sampled_from(["ok", "away", "record"]))
    def end(self, call: InFlight | None, outcome: str) -> None:
        """End a call that has begun; only an answer from the present era moves the model."""
        if call is None:
            return
        error = {"ok": None, "away": AWAY, "record": DecodeError("not JSON")}[outcome]
        call.permit.__exit__(type(error) if error else None, error, None)
        self.probes = [probe for probe in self.probes if probe is not call]
        if call.era != self.era or outcome == "record":
            return
        if outcome == "ok":
            self.failures = 0
            if self.state == "half_open":
                self.move("closed")
        else:
            self.failures += 1
            if self.state == "half_open" or self.failures >= self.THRESHOLD:
                self.opened = self.clock.time()
                self.move("open")

    @rule(seconds=st.sampled_from([1, 20, 59, 60, 61]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def agrees(self) -> None:
        """The state and whether a call would pass are what the model says."""
        state = self.visible_state()
        assert self.breaker.state == state
        blocked = state == "open" or (state == "half_open" and len(self.living_probes()) >= self.PROBES)
        assert (self.breaker.retry_after_ms > 0) is blocked


BreakerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestBreakerModel = pytest.mark.slow(BreakerMachine.TestCase)
