"""Which partitions a worker has: opened side by side, all or none, and closed whatever happens."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.aio import in_a_loop
from tests.unit.worker.pieces import small_plan
from tidegate.clock import Deadline
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.record import TopicPartition
from transport import EARLIEST
from worker import owner as module
from worker.observe import Observer
from worker.owner import Owner

ZERO, ONE, TWO = (TopicPartition("flights", number) for number in range(3))


class Task:
    """A partition that does as told. `journal`: what all of them did."""

    journal: list[str]
    upto: dict[TopicPartition, int]
    faults: dict[TopicPartition, Exception]
    slow: set[TopicPartition]
    left: set[TopicPartition]
    begun = False

    def __init__(self, tp: TopicPartition, _: Any) -> None:
        self.tp = tp

    @property
    def is_left_behind(self) -> bool:
        return self.tp in self.left

    async def start(self) -> int:
        try:
            if self.tp in self.slow:
                await asyncio.sleep(60)
            if self.tp in self.faults:
                await asyncio.sleep(0.01)
                raise self.faults[self.tp]
        except asyncio.CancelledError:
            self.journal.append(f"cancelled {self.tp.partition}")
            raise
        self.journal.append(f"opened {self.tp.partition}")
        return self.upto.get(self.tp, -1)

    async def stop(self, deadline: Deadline) -> None:
        await asyncio.sleep(0.01 * self.tp.partition)
        self.journal.append(f"closed {self.tp.partition}")
        if self.tp in self.faults:
            raise self.faults[self.tp]


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> type[Task]:
    Task.journal, Task.upto, Task.faults, Task.slow, Task.left = [], {}, {}, set(), set()
    monkeypatch.setattr(module, "SourcePartition", Task)
    monkeypatch.setattr(module, "_OUTAGE_WAIT", 0.01)
    return Task


def owner(**more: Any) -> tuple[Owner, list[BaseException]]:
    plan, failures = small_plan(), list[BaseException]()
    context = SimpleNamespace(plan=plan, observer=Observer(plan), fail=failures.append, grow=None, **more)
    return Owner(cast(Any, context)), failures


@in_a_loop
async def _opens(task: type[Task]) -> None:
    task.upto = {ZERO: 41}
    made, failures = owner()
    assert await made.assigned({ZERO, ONE}) == {ZERO: 42, ONE: EARLIEST}
    assert (made.opening, set(made.tasks), failures) == (set(), {ZERO, ONE}, [])
    await made.revoked({ZERO}, Deadline(1))
    assert set(made.tasks) == {ONE}


def test_partitions_start_after_what_their_state_has(task: type[Task]) -> None:
    """One without a state starts at the beginning of the log."""
    _opens(task)


@in_a_loop
async def _one_fails(task: type[Task]) -> None:
    task.faults, task.slow = {ONE: ConfigError("the state has other measures")}, {TWO}
    made, failures = owner()
    opening = asyncio.create_task(made.assigned({ZERO, ONE, TWO}))
    async with asyncio.timeout(5):
        while not failures:  # noqa: ASYNC110 (what it waits for has no event)
            await asyncio.sleep(0.005)
    assert [str(error).splitlines()[0] for error in failures] == ["the state has other measures"]
    assert task.journal == ["opened 0", "cancelled 2"], "none is opened any further"
    assert not opening.done(), "the transport is held until the worker has stopped"
    opening.cancel()
    await asyncio.wait([opening])
    task.faults = {}
    await made.revoked({ZERO, ONE, TWO}, Deadline(1))
    assert task.journal[2:] == ["closed 0", "closed 1", "closed 2"]


def test_one_that_cannot_be_opened_ends_the_worker_and_no_other_is_opened_any_further(task: type[Task]) -> None:
    """The reason is the worker's last word; what was opened is closed with the rest."""
    _one_fails(task)


@in_a_loop
async def _a_bug(task: type[Task]) -> None:
    task.faults, task.slow = {ONE: KeyError("a bug")}, {TWO}
    made, failures = owner()
    with pytest.raises(KeyError, match="a bug"):
        await made.assigned({ONE, TWO})
    assert (task.journal, failures) == (["cancelled 2"], [])


def test_a_bug_in_opening_is_raised_as_it_is(task: type[Task]) -> None:
    """Not in a group of errors, and with nothing going on behind it."""
    _a_bug(task)


@in_a_loop
async def _revoked_meanwhile(task: type[Task]) -> None:
    task.slow = {ZERO, ONE}
    made, failures = owner()
    opening = asyncio.create_task(made.assigned({ZERO, ONE, TWO}))
    await asyncio.sleep(0.02)
    assert made.opening == {ZERO, ONE, TWO}
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert sorted(task.journal) == ["cancelled 0", "cancelled 1", "opened 2"]
    await made.revoked({ZERO, ONE, TWO}, Deadline(1))
    assert (made.opening, made.tasks, failures) == (set(), {}, [])
    assert task.journal[3:] == ["closed 0", "closed 1", "closed 2"]


def test_a_revocation_while_partitions_are_opened(task: type[Task]) -> None:
    """All of them are left, then closed: those that were open already and those that were half open."""
    _revoked_meanwhile(task)


@in_a_loop
async def _close_fails(task: type[Task]) -> None:
    made, _ = owner()
    await made.assigned({ZERO, ONE, TWO})
    task.faults = {ZERO: OSError("disk full")}
    with pytest.raises(OSError, match="disk full"):
        await made.revoked({ZERO, ONE, TWO}, Deadline(1))
    assert task.journal[3:] == ["closed 0", "closed 1", "closed 2"], "all of them, before the error is raised"


def test_one_that_cannot_be_closed_does_not_keep_the_others_from_it(task: type[Task]) -> None:
    """Its error is raised when all are closed."""
    _close_fails(task)


@in_a_loop
async def _left_behind(task: type[Task]) -> None:
    made, _ = owner()
    await made.assigned({ZERO, ONE})
    task.left = {ONE}
    await made.revoked({ZERO, ONE}, Deadline(1))
    assert [one.tp for one in made.left_behind] == [ONE]
    task.left = set()
    assert made.left_behind == []


def test_what_was_given_up_in_the_middle_of_a_call_is_not_forgotten(task: type[Task]) -> None:
    """It is watched until the call has ended."""
    _left_behind(task)


@in_a_loop
async def _grows(task: type[Task]) -> None:
    answers: list[Exception | None] = [BrokerUnavailable("away"), BrokerUnavailable("away"), None]
    seen: list[dict[TopicPartition, str]] = []

    async def grow() -> None:
        seen.append(dict(made._context.observer.waiting))
        if (answer := answers.pop(0)) is not None:
            raise answer

    made, failures = owner(sources=lambda: [ZERO])
    made._context.grow = grow
    assert await made.assigned({ONE}) == {ONE: EARLIEST}
    assert seen == [{}, {ONE: "outage"}, {ONE: "outage"}], "it waits on purpose, and says so"
    assert (failures, made._context.observer.waiting) == ([], {})


def test_a_broker_that_is_away_when_new_partitions_are_looked_at_is_waited_for(task: type[Task]) -> None:
    """An outage elsewhere ends no worker."""
    _grows(task)
