"""How long a few records wait for others, so that a partition does not commit more often than it is worth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.aio import in_a_loop
from tests.unit.worker.pieces import TP, plan_of
from transport.batch import SourceBatch
from worker.context import Delivery
from worker.deliveries import Deliveries

MOMENT = 0.05  # seconds
FULL = 1600  # records


def deliveries(interval: str) -> Deliveries:
    plan = plan_of(worker={"maxBatchRecords": FULL, "maxBatchBytes": 1_600_000, "commitInterval": interval})
    context = SimpleNamespace(
        plan=plan,
        observer=SimpleNamespace(offered=lambda *_: None),
        consumer=SimpleNamespace(is_current=lambda _: True),
    )
    return Deliveries(TP, cast(Any, context))


def put(into: Deliveries, first: int, count: int = 1, *, nbytes: int = 100) -> None:
    async def ack() -> None: ...

    records = [SimpleNamespace(offset=first + index) for index in range(count)]
    into.put(Delivery(SourceBatch(TP, cast(Any, records), nbytes), ack))


def firsts(taken: list[Delivery]) -> list[int]:
    return [delivery.batch.first for delivery in taken]


@asynccontextmanager
async def asked(of: Deliveries) -> AsyncIterator[asyncio.Task[list[Delivery]]]:
    """The next batch is asked for, and has had a moment to come."""
    task = asyncio.create_task(of.next(MOMENT))
    await asyncio.sleep(MOMENT)
    yield task
    task.cancel()


@in_a_loop
async def test_the_first_records_wait_for_nothing() -> None:
    """A batch begins at once when none has begun within the interval."""
    waiting = deliveries("1 hour")
    put(waiting, 0)
    assert firsts(await waiting.next(MOMENT)) == [0]


@pytest.mark.slow  # an interval that a busy machine's pause of a moment does not reach
@in_a_loop
async def test_a_few_wait_for_the_interval_and_go_together() -> None:
    """What comes within the interval after a batch has begun is the next batch."""
    waiting = deliveries("1 second")
    put(waiting, 0)
    await waiting.next(MOMENT)
    put(waiting, 1)
    async with asked(waiting) as batch:
        assert not batch.done()
        put(waiting, 2)
        assert firsts(await batch) == [1, 2]


@in_a_loop
async def test_many_wait_for_nothing() -> None:
    """A sixteenth of a full batch, in records or in bytes, is enough to begin with; those in front of it go along."""
    for count, nbytes in ((FULL // 16, 100), (1, 100_000)):
        waiting = deliveries("1 hour")
        put(waiting, 0)
        await waiting.next(MOMENT)
        put(waiting, 1)
        async with asked(waiting) as batch:
            assert not batch.done()
            put(waiting, 2, count, nbytes=nbytes)
            assert firsts(await batch) == [1, 2]
        put(waiting, 1000)
        async with asked(waiting) as batch:
            assert not batch.done(), "those behind them are few again"


@in_a_loop
async def test_without_an_interval_nothing_waits() -> None:
    """`commitInterval: 0` takes whatever is there."""
    waiting = deliveries("0 ms")
    for first in range(3):
        put(waiting, first)
        assert firsts(await waiting.next(MOMENT)) == [first]
