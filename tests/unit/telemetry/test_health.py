"""Health: what makes a process dead, what makes it not ready, and what a stuck worker is."""

from __future__ import annotations

import pytest

from tidegate.clock import ManualClock
from tidegate.config.errorhandling import CircuitBreaker as BreakerConfig
from tidegate.errors import StoreUnavailable
from tidegate.resilience import CircuitBreaker, Registry
from tidegate.telemetry.health import Health


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def health(clock: ManualClock) -> Health:
    return Health(clock, stuck_timeout=300, heartbeat_timeout=30)


def test_starting(health: Health, clock: ManualClock) -> None:
    """A process that has not begun its loop is alive: it is starting."""
    clock.advance(3600)
    assert health.live().fine


def test_heartbeat(health: Health, clock: ManualClock) -> None:
    """A loop that has stopped turning makes the process dead, and beating again makes it alive."""
    health.beat()
    clock.advance(29.9)
    assert health.live().fine
    clock.advance(0.1)
    assert health.live().reasons == {"heartbeat": "the process's loop has not turned for 30 s"}
    health.beat()
    assert health.live().fine


def test_stuck(health: Health, clock: ManualClock) -> None:
    """With work and no step forward for the timeout, a partition is stuck, and /live names it."""
    health.progress.observe({"flights-0": 7})
    clock.advance(299)
    health.progress.observe({"flights-0": 7})
    assert health.live().fine
    clock.advance(1)
    assert health.progress.stuck == {"flights-0": 300}
    assert health.live().reasons == {
        "progress": "flights-0 has not moved for 300 s, although there is work and nothing is paused"
    }


def test_one_that_is_stuck_is_noticed_beside_others_that_move(health: Health, clock: ManualClock) -> None:
    """Every partition has a clock of its own."""
    for step in range(4):
        health.progress.observe({"flights-0": step, "flights-1": 5})
        clock.advance(100)
    assert list(health.progress.stuck) == ["flights-1"]


def test_steps_keep_it_going(health: Health, clock: ManualClock) -> None:
    """A partition that is slow but moves is not stuck, however long its backlog lasts."""
    for step in range(10):
        health.progress.observe({"flights-0": step})
        clock.advance(200)
    assert not health.progress.stuck


def test_idle_and_paused_are_not_stuck(health: Health, clock: ManualClock) -> None:
    """Without work, or paused on purpose, nothing is stuck, and the time begins anew after."""
    health.progress.observe({"flights-0": 7})
    clock.advance(250)
    health.progress.observe({})
    clock.advance(10_000)
    assert not health.progress.stuck
    health.progress.observe({"flights-0": 7})
    clock.advance(299)
    assert not health.progress.stuck


def test_conditions(health: Health) -> None:
    """The process is ready when no condition is left; each has its reason, the latest one counts."""
    health.not_ready("assignment", "no partitions assigned yet")
    health.not_ready("restoring", "0 of 3 partitions restored")
    health.not_ready("restoring", "2 of 3 partitions restored")
    report = health.ready()
    assert (report.fine, report.status) == (False, "unavailable")
    assert report.reasons == {"assignment": "no partitions assigned yet", "restoring": "2 of 3 partitions restored"}
    health.is_ready("assignment")
    health.is_ready("restoring")
    health.is_ready("restoring")
    assert (health.ready().fine, health.ready().status) == (True, "ok")


def test_not_ready_is_not_dead(health: Health) -> None:
    """What is not ready is alive all the same."""
    health.not_ready("restoring", "0 of 3 partitions restored")
    assert health.live().fine


def test_dead_is_not_ready(health: Health, clock: ManualClock) -> None:
    """What is not alive is not ready either."""
    health.beat()
    clock.advance(60)
    assert "heartbeat" in health.ready().reasons


def test_checks(health: Health) -> None:
    """Checks are asked each time; what is not ready is alive all the same."""
    answers: list[str | None] = [None]
    health.check_ready("store", lambda: answers[0])
    assert health.ready().fine
    answers[:] = ["connection refused"]
    assert health.live().fine
    assert health.ready().reasons == {"store": "connection refused"}


def test_a_check_that_raises(health: Health) -> None:
    """A check that raises fails, with its error as the reason, and the others are asked all the same."""

    def broken() -> str | None:
        raise KeyError("lag")

    health.check_ready("broken", broken)
    health.check_ready("store", lambda: "away")
    assert health.ready().reasons == {"broken": "the check itself failed: KeyError: 'lag'", "store": "away"}


def test_open_breaker(health: Health, clock: ManualClock) -> None:
    """An open breaker makes the process not ready, never dead; from half-open on it is ready."""
    registry = Registry()
    breaker = CircuitBreaker("postgres", BreakerConfig(failure_threshold=1), clock=clock)
    registry.add(breaker)
    health.watch_breakers(registry)
    assert health.ready().fine

    def away() -> None:
        raise StoreUnavailable("connection refused")

    with pytest.raises(StoreUnavailable):
        breaker.call(away)
    assert health.ready().reasons == {"breakers": "'postgres' is open, next try in 60000 ms"}
    assert health.live().fine
    clock.advance(60)
    assert health.ready().fine
