"""Partitions come and go, with an owner and a broker that do as told: what is waited for, and for how long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from tests.aio import in_a_loop
from tidegate.clock import Deadline
from tidegate.record import TopicPartition
from transport import Consumer, TransportSettings
from transport import rebalance as module
from transport.control import PartitionControl
from transport.positions import OPENING, Position

TP = TopicPartition("t", 0)


class Thread:
    """The thread that speaks to Kafka. `faults` are raised first."""

    def __init__(self, *faults: Exception) -> None:
        self.faults, self.sought = deque(faults), dict[TopicPartition, int]()

    async def resolve(self, starts: dict[TopicPartition, int | None], reset: str) -> dict[TopicPartition, int]:
        if self.faults:
            raise self.faults.popleft()
        return dict.fromkeys(starts, 100)

    async def start_at(self, starts: dict[TopicPartition, tuple[int, int]]) -> set[TopicPartition]:
        if self.faults:
            raise self.faults.popleft()
        self.sought = {tp: offset for tp, (offset, _) in starts.items()}
        return set(starts)


class Owner:
    """Opens and closes as told."""

    def __init__(self, opening: Callable[[], Awaitable[None]], closing: Callable[[Deadline], Awaitable[None]]) -> None:
        self._opening, self._closing = opening, closing

    async def assigned(self, tps: set[TopicPartition]) -> dict[TopicPartition, int]:
        await self._opening()
        return {}

    async def revoked(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        await self._closing(deadline)


async def nothing(*_: Any) -> None:
    """At once."""


class Rebalancing(Consumer):
    """The consumer's part in a rebalance, without a connection."""

    def __init__(self, thread: Thread, opening: Any = nothing, closing: Any = nothing) -> None:
        self._thread = thread  # type: ignore[assignment]  # a consumer's thread that records what it is told
        self._positions, self._owned, self._opening = {TP: Position()}, set(), None
        self._positions[TP].holds.add(OPENING)
        self._wake, self._read_offset, self._committed_offset = asyncio.Event(), {}, {}
        self._releasing = asyncio.Lock()
        self._unacked_messages, self.crashes = set(), list[BaseException]()
        self.app: Any = SimpleNamespace(
            tide_settings=TransportSettings(drain_timeout=0.2), tide_ownership=Owner(opening, closing),
            conf=SimpleNamespace(consumer_auto_offset_reset="earliest"), should_stop=False,
        )  # fmt: skip
        self.log: Any = SimpleNamespace(warning=nothing_said, error=nothing_said)

    async def crash(self, reason: BaseException) -> None:
        self.crashes.append(reason)

    async def force_commit(self, *_: Any, **__: Any) -> bool:
        return True

    def open(self) -> asyncio.Task[None]:
        self._opening = asyncio.create_task(self._open({TP}))
        return self._opening


def nothing_said(*_: Any) -> None:
    """No log."""


@in_a_loop
async def _asked_again() -> None:
    thread = Thread(KafkaConnectionError("away"), TimeoutError(), KafkaConnectionError("away"))
    consumer = Rebalancing(thread)
    assert consumer.is_opening(TP)
    opening = consumer.open()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not consumer.is_opening(TP), "it waits on purpose: it is not stuck"
    await asyncio.wait_for(opening, 5)
    assert (thread.sought, consumer.crashes) == ({TP: 100}, [])
    assert consumer._positions[TP].holds == set(), "it flows"


def test_a_broker_that_goes_away_while_partitions_are_opened_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker does not end for it."""
    monkeypatch.setattr(module, "_ASK_AGAIN", 0.001)
    _asked_again()


@in_a_loop
async def test_an_opening_that_does_not_end_is_not_waited_for_beyond_the_deadline() -> None:
    """A state that is being read from a slow disk, say: the others' rebalance goes on."""

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if done:
                    raise

    done, seen = list[bool](), list[float]()

    async def closing(deadline: Deadline) -> None:
        seen.append(deadline.remaining())

    consumer = Rebalancing(Thread(), stubborn, closing)
    opening = consumer.open()
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await consumer._release({TP})
    assert seen == [0.0], "one deadline for both"
    assert consumer._positions == {}
    done.append(True)
    opening.cancel()
    await asyncio.wait([opening])


@in_a_loop
async def test_a_stop_has_one_deadline_for_all_of_it() -> None:
    """What was set when the process began to end, not a new one for every part."""
    seen: list[Deadline] = []

    async def closing(deadline: Deadline) -> None:
        seen.append(deadline)

    consumer = Rebalancing(Thread(), closing=closing)
    await consumer.open()
    consumer.app.tide_deadline = Deadline(7)
    await consumer.wait_empty()
    assert seen == [consumer.app.tide_deadline]


@in_a_loop
async def test_a_cancellation_as_the_owner_finishes_is_not_swallowed() -> None:
    """Both at the same moment: whoever cancelled would wait for ever."""
    finish = asyncio.Event()

    async def closing(_: Deadline) -> None:
        await finish.wait()

    consumer = Rebalancing(Thread(), closing=closing)
    await consumer.open()
    releasing = asyncio.create_task(consumer._release({TP}))
    await asyncio.sleep(0.01)
    finish.set()
    releasing.cancel()
    await asyncio.wait([releasing])
    assert releasing.cancelled()


@in_a_loop
async def test_a_timeout_of_the_owners_own_is_an_error() -> None:
    """It is no drain that took too long."""

    async def closing(_: Deadline) -> None:
        raise TimeoutError("of something else")

    consumer = Rebalancing(Thread(), closing=closing)
    await consumer.open()
    await consumer._release({TP})
    assert [str(error) for error in consumer.crashes] == ["of something else"]


@in_a_loop
async def test_a_stop_during_a_rebalance_waits_for_its_drain() -> None:
    """The partitions are being given up already: what is stopped next is what they still use."""
    finish, order = asyncio.Event(), list[str]()

    async def closing(_: Deadline) -> None:
        await finish.wait()
        order.append("drained")

    consumer = Rebalancing(Thread(), closing=closing)
    await consumer.open()

    async def stop() -> None:
        await consumer.wait_empty()
        order.append("stopped")

    both = [asyncio.create_task(consumer._release({TP})), asyncio.create_task(stop())]
    await asyncio.sleep(0.02)
    finish.set()
    await asyncio.wait_for(asyncio.gather(*both), 5)
    assert order == ["drained", "stopped"]


@in_a_loop
async def _assigned_late() -> None:
    opened: list[bool] = []

    async def opening() -> None:
        opened.append(True)

    consumer = Rebalancing(Thread(), opening)
    consumer.app.should_stop = True
    await consumer.on_partitions_assigned({TP})  # type: ignore[arg-type]  # Faust's own kind of partition, equal to ours
    await asyncio.sleep(0.01)
    assert opened == []


def test_partitions_that_come_while_the_process_ends_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would close them."""
    monkeypatch.setattr(PartitionControl, "on_partitions_assigned", nothing)
    _assigned_late()
