"""What the agent of dead letters waits for before it closes its index."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dlq.agent import Indexing, Observer
from tests.aio import in_a_loop
from tidegate.clock import Deadline, ManualClock
from tidegate.config.errorhandling import ErrorHandling
from tidegate.errors import StoreUnavailable
from tidegate.record import TopicPartition
from tidegate.resilience import Registry
from tidegate.resilience.guard import Guard
from transport.batch import SourceBatch

TP = TopicPartition("flights.dlq", 0)
QUIET = {"retry": {"maxAttempts": 1}, "circuitBreaker": {"failureThreshold": 100}}


class Writer:
    """An index that does not come back until it may."""

    def __init__(self) -> None:
        self.begun, self.go, self.faults = threading.Event(), threading.Event(), list[Exception]()

    def starts(self, tps: set[TopicPartition]) -> dict[TopicPartition, int]:
        if self.faults:
            raise self.faults.pop(0)
        return dict.fromkeys(tps, 4)

    def write(self, tp: TopicPartition, rows: Any, upto: int) -> int:
        self.begun.set()
        self.go.wait(10)
        return 1


def indexing(writer: Writer) -> Indexing:
    guard = Guard("index", ErrorHandling.model_validate(QUIET), clock=ManualClock(), registry=Registry())
    return Indexing(cast(Any, writer), cast(Any, None), guard, Observer("g", ("flights.dlq",)), {}, fail=pytest.fail)


@in_a_loop
async def test_a_transaction_that_outlasts_the_deadline_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop ends all the same; the partition is watched until its transaction has ended, and nothing is acknowledged."""
    monkeypatch.setattr("dlq.agent.index_row", lambda *_: None)
    writer = Writer()
    made = indexing(writer)
    assert await made.assigned({TP}) == {TP: 5}
    batch: Any = SourceBatch(TP, cast(Any, [SimpleNamespace(offset=7)]), 100)

    async def ack() -> None:
        pytest.fail("what was not finished was acknowledged")

    made.offer(batch, ack)
    await asyncio.to_thread(writer.begun.wait, 5)
    async with asyncio.timeout(3):
        await made.revoked({TP}, Deadline(0.05))
    (left,) = made.left_behind
    assert left.doing.startswith("indexing up to offset 7 for ")
    writer.go.set()
    async with asyncio.timeout(5):
        while made.left_behind:  # noqa: ASYNC110 (what it waits for has no event)
            await asyncio.sleep(0.01)
    made.close()


@in_a_loop
async def test_an_index_that_is_away_when_partitions_come_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On purpose, and it says so: the agent is not stuck."""
    monkeypatch.setattr("dlq.agent._OUTAGE_WAIT", (0.01, 0.02))
    writer = Writer()
    writer.faults = [StoreUnavailable("away"), StoreUnavailable("away")]
    made = indexing(writer)
    opening = asyncio.create_task(made.assigned({TP}))
    async with asyncio.timeout(5):
        while not made.observer.waiting and not opening.done():  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0)
    assert made.opening == {TP}
    assert await opening == {TP: 5}
    assert (made.observer.waiting, made.opening) == ({}, set())
    await made.revoked({TP}, Deadline(1))
    made.close()
