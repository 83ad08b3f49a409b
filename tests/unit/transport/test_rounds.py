"""How often the transport fetches."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from tests.aio import in_a_loop
from tidegate.record import TopicPartition
from transport.consumer import Consumer
from transport.ownership import TransportSettings
from transport.positions import Position
from transport.thread import Fetched

TP = TopicPartition("flights", 0)
LITTLE, MUCH = 1, 100


class Fetches:
    """A consumer of one partition, each of whose fetches brings so many records (which nobody delivers)."""

    def __init__(self, records: int, *, busy: bool) -> None:
        position, self.count = Position(), 0
        if busy:
            batch = type("Batch", (), {"__len__": lambda _: 1, "nbytes": 1})()
            position.in_flight.append(SimpleNamespace(value=batch, acked=False))
        self._records = records
        self.consumer = cast(Any, Consumer.__new__(Consumer))
        self.consumer.app = SimpleNamespace(tide_settings=TransportSettings(max_batch_records=1600))
        self.consumer._positions, self.consumer._wake = {TP: position}, asyncio.Event()
        self.consumer._thread = SimpleNamespace(fetch=self._fetch)
        self.consumer._deliver = self._deliver
        self.consumer._take = lambda *_: None

    async def rounds(self, count: int) -> int:
        """How many fetches so many rounds made."""
        for _ in range(count):
            await self.consumer._round()
        return self.count

    async def _fetch(self, *_: Any) -> Fetched:
        self.count += 1
        return Fetched({TP: cast(Any, [None] * self._records)} if self._records else {}, {}, {})

    async def _deliver(self) -> None: ...


@in_a_loop
async def test_little_is_not_fetched_again_at_once_while_a_batch_is_at_work() -> None:
    """The next round waits, and fetches nothing; a batch that is done is no reason to fetch, but ends the wait."""
    fetches = Fetches(LITTLE, busy=True)
    assert await fetches.rounds(1) == 1
    fetches.consumer._next_fetch += 3600
    waiting = asyncio.create_task(fetches.rounds(1))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    fetches.consumer._wake.set()
    assert await waiting == 1


@in_a_loop
async def test_little_is_fetched_again_a_moment_later() -> None:
    """A busy partition is fetched from 50 times a second."""
    fetches = Fetches(LITTLE, busy=True)
    await fetches.rounds(1)
    await asyncio.sleep(0.03)
    assert await fetches.rounds(1) == 2


@in_a_loop
async def test_a_backlog_or_an_idle_worker_is_fetched_from_at_once() -> None:
    """Nothing waits when much has come, nothing is at work, or nothing could be fetched because all partitions were full."""
    assert await Fetches(MUCH, busy=True).rounds(3) == 3
    assert await Fetches(0, busy=True).rounds(3) == 3
    assert await Fetches(LITTLE, busy=False).rounds(3) == 3
