"""The waits between attempts: how they grow, where they end, how far chance goes."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidegate.clock import ManualClock
from tidegate.config.errorhandling import Retry
from tidegate.resilience import RetryPolicy


def make(*, seed: int = 7, **config: Any) -> RetryPolicy:
    settings = Retry.model_validate({"initialDelayMs": 1000, "jitter": False, **config})
    return RetryPolicy(settings, clock=ManualClock(), rng=random.Random(seed))


def test_exponential_delays() -> None:
    """Waits grow by the multiplier up to the cap, one fewer than there are attempts."""
    policy = make(maxAttempts=8, backoffMultiplier=3, maxDelayMs=30_000)
    assert list(policy.delays()) == [1, 3, 9, 27, 30, 30, 30]


def test_fixed_delays() -> None:
    """Fixed-delay waits equally long each time."""
    assert list(make(strategy="fixed-delay", delaySeconds=2.5, maxAttempts=4).delays()) == [2.5, 2.5, 2.5]


def test_no_delays() -> None:
    """Strategy `none` has no waits, whatever maxAttempts says."""
    assert list(make(strategy="none", maxAttempts=5).delays()) == []


def test_thousands_of_attempts() -> None:
    """No number of attempts overflows the delay, an initial delay of zero included."""
    assert list(make(initialDelayMs=0, maxAttempts=3000).delays())[-1] == 0
    assert list(make(initialDelayMs=1, maxAttempts=3000).delays())[-1] == 60


def test_the_users_block_waits_at_most_fifteen_seconds() -> None:
    """The default block waits 15 s in all: far below Kafka's limit of 300 s between two polls."""
    assert sum(make(jitter=False, maxAttempts=5).delays()) == 15


@given(
    seed=st.integers(0, 1000),
    initial=st.integers(0, 5000),
    multiplier=st.floats(1, 10),
    cap=st.integers(0, 60_000),
    attempts=st.integers(1, 30),
)
def test_jitter_bounds(seed: int, initial: int, multiplier: float, cap: int, attempts: int) -> None:
    """With jitter every wait is between 50 and 100 % of the delay it would be without."""
    config: dict[str, Any] = {
        "initialDelayMs": initial, "backoffMultiplier": multiplier, "maxDelayMs": cap, "maxAttempts": attempts,
    }  # fmt: skip
    plain = list(make(**config).delays())
    jittered = list(make(seed=seed, jitter=True, **config).delays())
    assert len(plain) == len(jittered) == attempts - 1
    for wait, delay in zip(jittered, plain, strict=True):
        assert delay / 2 <= wait <= delay <= cap / 1000


def test_same_seed_same_waits() -> None:
    """Chance is passed in: the same generator gives the same waits."""
    assert list(make(jitter=True).delays()) == list(make(jitter=True).delays())
    assert list(make(jitter=True).delays()) != list(make(jitter=True, seed=8).delays())
