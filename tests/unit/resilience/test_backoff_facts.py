"""What backoff 2.2.1 does, as found: the reasons for the shape of tidegate/resilience/retry.py.

A new version shows here.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from importlib.metadata import version
from itertools import islice

import backoff
import pytest


def test_version() -> None:
    """These facts were found in backoff 2.2.1."""
    assert version("backoff") == "2.2.1"


def test_default_jitter_reaches_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """backoff's own jitter takes the whole range down to nothing, so that waits can vanish."""
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    assert backoff.full_jitter(10) == 0


def test_expo_overflows_without_a_cap() -> None:
    """backoff.expo without max_value overflows after a thousand waits; with it, it never does."""
    waits = backoff.expo(base=2.0)
    next(waits)
    with pytest.raises(OverflowError):
        list(islice(waits, 1100))
    capped = backoff.expo(max_value=60)
    next(capped)
    assert [next(capped) for _ in range(2000)][-1] == 60


def test_max_time_is_checked_late() -> None:
    """backoff looks at the time before the call: a call longer than max_time is made twice."""
    import time

    calls: list[int] = []

    @backoff.on_exception(backoff.constant, OSError, max_time=0.01, interval=0, jitter=None)
    def slow() -> None:
        calls.append(1)
        time.sleep(0.03)
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        slow()
    assert len(calls) == 2


def test_async_callable_is_not_retried() -> None:
    """backoff takes an object with an async __call__ for a function: one attempt."""

    class Call:
        __name__ = "Call"
        calls = 0

        async def __call__(self) -> None:
            self.calls += 1
            raise OSError("away")

    target = Call()
    wrapped = backoff.on_exception(backoff.constant, OSError, max_tries=3, interval=0, jitter=None)(target)
    with pytest.raises(OSError, match="away"):
        asyncio.run(wrapped())
    assert target.calls == 1


def test_a_handler_that_raises_replaces_the_error() -> None:
    """A backoff handler that raises hides what really went wrong."""

    def handler(details: object) -> None:
        raise RuntimeError("a bug in the handler")

    @backoff.on_exception(backoff.constant, OSError, max_tries=3, interval=0, jitter=None, on_backoff=handler)
    def away() -> None:
        raise OSError("away")

    with pytest.raises(RuntimeError, match="bug in the handler"):
        away()


def test_one_decorator_on_two_functions_doubles_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One backoff decorator used for two functions logs each retry twice for the second."""
    decorator = backoff.on_exception(backoff.constant, OSError, max_tries=2, interval=0, jitter=None)

    def away() -> None:
        raise OSError("away")

    decorator(away)
    second = decorator(away)
    with pytest.raises(OSError, match="away"):
        second()
    assert sum("Backing off" in line for line in caplog.messages) == 2


def test_partials_crash_in_the_log() -> None:
    """backoff around a partial fails in its own log line: a partial has no __name__."""

    def away() -> None:
        raise OSError("away")

    wrapped = backoff.on_exception(backoff.constant, OSError, max_tries=2, interval=0, jitter=None)(partial(away))
    with pytest.raises(AttributeError, match="__name__"):
        wrapped()
