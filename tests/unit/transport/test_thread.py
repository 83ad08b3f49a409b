"""How the thread that speaks to Kafka ends when the broker is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers import aiokafka as driver

from tests.aio import in_a_loop
from transport import thread as module
from transport.thread import ConsumerThread


async def hangs() -> None:
    await asyncio.sleep(60)


async def lets_a_cancellation_out() -> None:
    raise asyncio.CancelledError


async def fails() -> None:
    raise KafkaConnectionError("away")


@in_a_loop
async def _ends(thread: ConsumerThread) -> None:
    async with asyncio.timeout(5):
        await thread.on_thread_stop()


@pytest.mark.parametrize("end", [hangs, lets_a_cancellation_out, fails], ids=lambda end: end.__name__)
def test_it_ends_whatever_the_client_does(monkeypatch: pytest.MonkeyPatch, end: Callable[[], Awaitable[None]]) -> None:
    """mode waits for the thread, and for ever when a cancellation comes out of it; the log says that the group was not
    left."""
    said: list[str] = []
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "on_thread_stop", lambda _: end())
    monkeypatch.setattr(module, "_LEAVE_TIMEOUT", 0.05)
    thread: Any = ConsumerThread.__new__(ConsumerThread)
    thread.log = SimpleNamespace(warning=said.append)
    _ends(thread)
    assert len(said) == 1
    assert "group_not_left" in said[0]
