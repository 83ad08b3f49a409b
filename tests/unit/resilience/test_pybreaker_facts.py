"""What pybreaker 1.4.1 does, as found: the reasons for the shape of tidegate/resilience/breaker.py.

A new version shows here.
"""

from __future__ import annotations

import asyncio
import threading
from importlib.metadata import version

import pybreaker
import pytest


def test_version() -> None:
    """These facts were found in pybreaker 1.4.1."""
    assert version("pybreaker") == "1.4.1"


def test_coroutines_count_nothing() -> None:
    """pybreaker around an async function counts the making of the coroutine, not its failure."""
    breaker = pybreaker.CircuitBreaker(fail_max=2)

    async def away() -> None:
        raise OSError("away")

    for _ in range(5):
        with pytest.raises(OSError, match="away"):
            asyncio.run(breaker.call(away))
    assert (breaker.current_state, breaker.fail_counter) == ("closed", 0)


def test_lock_is_held_during_the_call() -> None:
    """pybreaker holds its lock while the guarded call runs: a second thread cannot even start."""
    breaker = pybreaker.CircuitBreaker()
    started, second_ran = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: (started.wait(5), breaker.call(second_ran.set)))
    other.start()

    def body() -> bool:
        started.set()
        return second_ran.wait(0.05)

    assert breaker.call(body) is False
    other.join()


def test_cancellation_counts() -> None:
    """pybreaker takes a cancellation and an interrupt for failures of the dependency."""
    breaker = pybreaker.CircuitBreaker(fail_max=2, throw_new_error_on_trip=False)

    def stopped(error: BaseException) -> None:
        raise error

    for error in (asyncio.CancelledError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            breaker.call(stopped, error)
    assert breaker.current_state == "open"


def test_an_excluded_error_resets_the_count() -> None:
    """An error that pybreaker excludes counts as a success and forgets the failures before it."""
    breaker = pybreaker.CircuitBreaker(fail_max=5, exclude=[ValueError])

    def raiser(error: Exception) -> None:
        raise error

    for error in (OSError(), OSError(), ValueError()):
        with pytest.raises(type(error)):
            breaker.call(raiser, error)
    assert breaker.fail_counter == 0


def test_a_trip_replaces_the_error() -> None:
    """By default the call that trips pybreaker raises pybreaker's error and not its own."""
    breaker = pybreaker.CircuitBreaker(fail_max=1)

    def away() -> None:
        raise OSError("away")

    with pytest.raises(pybreaker.CircuitBreakerError):
        breaker.call(away)


def test_half_open_lets_everyone_in() -> None:
    """pybreaker's context manager lets any number of probes in while it is half-open."""
    breaker = pybreaker.CircuitBreaker()
    breaker.half_open()
    probes = [breaker.calling() for _ in range(10)]
    for probe in probes:
        probe.__enter__()  # nobody is turned away
    for probe in probes:
        probe.__exit__(None, None, None)


def test_open_stays_open_until_called() -> None:
    """pybreaker reads open after its reset timeout, until somebody calls."""
    breaker = pybreaker.CircuitBreaker(reset_timeout=0)
    breaker.open()
    assert breaker.current_state == "open"
    breaker.call(lambda: None)
    assert breaker.current_state == "closed"


def test_a_listener_that_raises_prevents_the_transition() -> None:
    """A pybreaker listener that raises replaces the error and keeps the breaker from opening."""

    class Broken(pybreaker.CircuitBreakerListener):
        def failure(self, cb: pybreaker.CircuitBreaker, exc: BaseException) -> None:
            raise RuntimeError("a listener with a bug")

    breaker = pybreaker.CircuitBreaker(fail_max=1, listeners=[Broken()])

    def away() -> None:
        raise OSError("away")

    with pytest.raises(RuntimeError):
        breaker.call(away)
    assert breaker.current_state == "closed"


def test_call_async_needs_tornado() -> None:
    """pybreaker's call_async is for tornado: without it the call fails with a NameError."""
    if pybreaker.HAS_TORNADO_SUPPORT:
        pytest.skip("tornado is installed")
    with pytest.raises(NameError, match="gen"):
        pybreaker.CircuitBreaker().call_async(asyncio.sleep, 0)  # type: ignore[no-untyped-call]  # pybreaker has no types
