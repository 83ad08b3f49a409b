"""When a partition tries again, waits, opens anew, acknowledges, and gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.aio import in_a_loop
from tests.unit.worker.pieces import TP, plan_of
from tidegate.clock import Deadline
from tidegate.errors import (
    BrokerUnavailable,
    CircuitOpen,
    LoginRefused,
    ProducerFenced,
    RowTooLarge,
    StoreFenced,
    StoreUnavailable,
)
from tidegate.record import TopicPartition
from transport.batch import SourceBatch
from worker import partition as module
from worker.context import Context, Delivery
from worker.observe import Observer
from worker.partition import PartitionTask


@dataclass
class Pauses:
    """The transport's side: what is paused, and why."""

    events: list[str] = field(default_factory=list)
    stale: set[int] = field(default_factory=set)

    def pause_partitions_for(self, tps: set[TopicPartition], reason: str) -> None:
        self.events.append(f"pause {reason}")

    def resume_partitions_for(self, tps: set[TopicPartition], reason: str) -> None:
        self.events.append(f"resume {reason}")

    def idle_seconds(self, tp: TopicPartition) -> float | None:
        return None

    def is_current(self, batch: SourceBatch) -> bool:
        return batch.first not in self.stale


class Scripted(PartitionTask):
    """A partition whose work fails as the script says, and whose opening is counted."""

    def __init__(self, context: Context, *script: Exception) -> None:
        super().__init__(TP, context)
        self.script, self.worked, self.opened, self.claimed = list(script), list[list[int]](), 0, 0
        self._claim: object | None = None

    async def _open(self) -> None:
        self.opened += 1
        self.db = self.producer = cast(Any, SimpleNamespace())

    async def _close(self, deadline: Deadline) -> None:
        self.db = self.producer = None
        self._release_claim()

    async def _ensure_claim(self) -> None:
        if self._claim is None:
            self.claimed += 1
            self._claim = object()

    def _release_claim(self) -> None:
        self._claim = None

    def _load(self, db: Any) -> int:
        return -1

    async def _work(self, records: list[Any]) -> None:
        if self.script:
            raise self.script.pop(0)
        self.worked.append([record.offset for record in records])

    async def _tick(self) -> None:
        """Nothing."""


@dataclass
class Stage:
    task: Scripted
    pauses: Pauses
    failures: list[BaseException]
    acked: list[int] = field(default_factory=list)

    def offer(self, *offsets: int) -> None:
        async def ack() -> None:
            self.acked.append(offsets[0])

        records = [SimpleNamespace(offset=offset) for offset in offsets]
        self.task.offer(Delivery(SourceBatch(TP, cast(Any, records), 100), ack))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 (what it waits for has no event)
                await asyncio.sleep(0.005)


def stage(*script: Exception, **settings: Any) -> Stage:
    plan, pauses, failures = plan_of(**settings), Pauses(), list[BaseException]()
    context = SimpleNamespace(plan=plan, observer=Observer(plan), consumer=pauses, fail=failures.append, executor=None)
    return Stage(Scripted(cast(Any, context), *script), pauses, failures)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OUTAGE_WAIT", (0.01, 0.02))
    monkeypatch.setattr(module, "_FENCE_WAIT", 0.01)


def scenario(*script: Exception) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[], None]]:
    """A test over a started partition that is stopped at the end."""

    def decorate(test: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
        @in_a_loop
        async def run() -> None:
            made = stage(*script)
            await made.task.start()
            try:
                await test(made)
            finally:
                await made.task.stop(Deadline(1))

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


@scenario()
async def test_what_is_done_is_acknowledged(s: Stage) -> None:
    """Batches in the order of their delivery, those that wait together as one."""
    s.offer(1, 2)
    s.offer(3)
    await s.until(lambda: s.acked == [1, 3])
    assert [offset for worked in s.task.worked for offset in worked] == [1, 2, 3]
    assert s.pauses.events == []
    await s.until(lambda: s.task.doing.startswith("nothing"))


@scenario(StoreUnavailable("away"), StoreUnavailable("away"))
async def test_an_outage_of_the_database_pauses_and_claims_again(s: Stage) -> None:
    """Nothing is acknowledged before it is done; producer and state stay, the claim is taken anew."""
    s.offer(1)
    await s.until(lambda: s.acked == [1])
    assert s.pauses.events == ["pause outage", "pause outage", "resume outage"]
    assert (s.task.opened, s.task.claimed, s.task.worked, s.failures) == (1, 3, [[1]], [])
    assert s.task.context.observer.waiting == {}


@scenario(BrokerUnavailable("away"))
async def test_after_an_outage_of_the_broker_everything_is_opened_anew(s: Stage) -> None:
    """The outcome of the transaction is unknown: the state is read again."""
    s.offer(1)
    await s.until(lambda: s.acked == [1])
    assert (s.task.opened, s.task.claimed) == (2, 2)


@scenario(CircuitOpen("store", 10), StoreUnavailable("away"))
async def test_an_open_breaker_says_how_long_to_wait(s: Stage) -> None:
    """One reason at a time holds a partition; a change of reason lets go of the first."""
    s.offer(1)
    await s.until(lambda: s.acked == [1])
    assert s.pauses.events == ["pause breaker", "resume breaker", "pause outage", "resume outage"]


@in_a_loop
async def test_a_login_that_is_refused_is_waited_out_and_said() -> None:
    """/ready says what the database has said, also while the breaker that has opened on it keeps quiet."""
    made = stage(LoginRefused("no such user\nhint"), *[CircuitOpen("store", 5)] * 1000)
    await made.task.start()
    made.offer(1)
    await made.until(lambda: "pause breaker" in made.pauses.events)
    assert made.task.context.observer.waiting == {TP: "no such user"}
    await made.task.stop(Deadline(5))


@scenario(StoreFenced("taken"), ProducerFenced("taken"))
async def test_a_fenced_partition_is_opened_anew(s: Stage) -> None:
    """In the store the claim is given up, in Kafka all of it."""
    s.offer(1)
    await s.until(lambda: s.acked == [1])
    assert s.pauses.events == ["pause fenced", "pause fenced", "resume fenced"]
    assert (s.task.opened, s.task.claimed) == (2, 3)


@scenario(RowTooLarge("results", 2_000_000))
async def test_what_no_waiting_mends_stops_the_worker(s: Stage) -> None:
    """The batch is not acknowledged, so whoever comes next reads it again."""
    s.offer(1)
    await s.until(lambda: bool(s.failures))
    assert (type(s.failures[0]), s.acked) == (RowTooLarge, [])


@scenario()
async def test_a_batch_of_before_a_seek_is_dropped(s: Stage) -> None:
    """It is neither worked on nor acknowledged."""
    s.pauses.stale = {1}
    s.offer(1)
    s.offer(5)
    await s.until(lambda: s.acked == [5])
    assert s.task.worked == [[5]]


@in_a_loop
async def test_a_revoked_partition_does_not_wait_out_an_outage() -> None:
    """Stopping ends the wait at once: the next owner goes on."""
    made = stage(*[StoreUnavailable("away")] * 1000)
    await made.task.start()
    made.offer(1)
    await made.until(lambda: "pause outage" in made.pauses.events)
    await asyncio.wait_for(made.task.stop(Deadline(5)), 2)
    assert (made.acked, made.task.db) == ([], None)


@in_a_loop
async def test_batches_are_joined_up_to_the_limit() -> None:
    """Together they have no more records than one batch may have."""
    made = stage(worker={"maxBatchRecords": 3})
    for first in (1, 3, 5):
        made.offer(first, first + 1)
    await made.task.start()
    await made.until(lambda: made.acked == [1, 3, 5])
    await made.task.stop(Deadline(1))
    assert made.task.worked == [[1, 2], [3, 4], [5, 6]]
