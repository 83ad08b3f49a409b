"""What a partition waits for before it closes its state, over a real one: a thread cannot be stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.aio import in_a_loop
from tests.unit.worker.pieces import TP, same_topics, small_plan
from tidegate.clock import Deadline
from transport.batch import SourceBatch
from worker import partition as module
from worker.context import Delivery
from worker.observe import Observer
from worker.partition import PartitionTask
from worker.restore import Restored
from worker.statedb import PartitionDB


class Producer:
    """Counts those that are open."""

    opened = 0

    def __init__(self, *_: Any) -> None:
        self._open = False

    async def start(self) -> None:
        self._open = True
        Producer.opened += 1

    async def stop(self) -> None:
        Producer.opened -= self._open
        self._open = False


class Blocked(PartitionTask):
    """Its work, or its opening, is a call in a thread that reads and writes the state, and does not come back until it
    may."""

    def __init__(self, context: Any, *, at: str) -> None:
        super().__init__(TP, context)
        self.at, self.begun_call, self.go, self.failed = at, threading.Event(), threading.Event(), list[Exception]()

    def _use(self, db: PartitionDB) -> None:
        self.begun_call.set()
        self.go.wait(10)
        try:
            db.write([(b"k", b"v")], [], 1)
        except Exception as error:
            self.failed.append(error)

    def _load(self, db: PartitionDB) -> int:
        if self.at == "load":
            self._use(db)
        return -1

    def _open_state(self, changelog_id: str) -> PartitionDB:
        if self.at == "open":
            self.begun_call.set()
            self.go.wait(10)
        return super()._open_state(changelog_id)

    async def _work(self, records: list[Any]) -> None:
        db = self.db
        assert db is not None
        await self._in_thread(lambda: self._use(db))

    async def _tick(self) -> None:
        """Nothing."""


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    async def nothing(*_: Any, **__: Any) -> Restored:
        return Restored(0, 0.0, 0)

    monkeypatch.setattr(module, "PartitionProducer", Producer)
    monkeypatch.setattr(module, "settle", nothing)
    monkeypatch.setattr(module, "restore", nothing)
    monkeypatch.setattr(module, "topic_ids", same_topics)
    monkeypatch.setattr(module, "_MOMENT", 0.05)
    monkeypatch.setattr(module, "_SETTLE", 0.3)
    monkeypatch.setattr(Producer, "opened", 0)
    plan = small_plan()
    consumer = SimpleNamespace(is_current=lambda _: True)
    with ThreadPoolExecutor(2) as executor:
        yield SimpleNamespace(
            plan=plan, observer=Observer(plan), consumer=consumer, fail=pytest.fail, executor=executor, stages=executor,
            readers=executor, kafka={}, confluent={}, state_dir=tmp_path,
        )  # fmt: skip


def batch() -> Delivery:
    async def ack() -> None:
        pytest.fail("what was not finished was acknowledged")

    return Delivery(SourceBatch(TP, cast(Any, [SimpleNamespace(offset=7), SimpleNamespace(offset=9)]), 100), ack)


def is_free(context: Any) -> bool:
    """Whether the partition's directory can be had, as its next owner would have it."""
    db = PartitionDB(context.state_dir / TP.topic / str(TP.partition))
    name = db.path.name
    db.close()
    return name == str(TP.partition)


def test_the_state_is_not_closed_under_a_call_that_outlasts_the_deadline(context: Any) -> None:
    """The stop ends all the same, says what was being done, and the call finds the state open when it goes on."""

    @in_a_loop
    async def run() -> None:
        task = Blocked(context, at="work")
        await task.start()
        task.offer(batch())
        await asyncio.to_thread(task.begun_call.wait, 5)
        async with asyncio.timeout(3):
            await task.stop(Deadline(0.1))
        assert task.is_left_behind
        assert task.doing.startswith("offsets 7 to 9 for ")
        assert Producer.opened == 0, "nothing more can be committed"
        assert not is_free(context)
        task.go.set()
        async with asyncio.timeout(5):
            while task.is_left_behind:  # noqa: ASYNC110 (what it waits for has no event)
                await asyncio.sleep(0.01)
        assert task.failed == []
        assert is_free(context), "closed by itself: the worker may live on"

    run()


@pytest.mark.parametrize("at", ["open", "load"])
def test_a_revocation_while_the_state_is_opened_closes_what_was_half_open(context: Any, at: str) -> None:
    """The thread that opens it goes on; what it has opened is closed once it has ended, and the producer is not forgotten."""

    @in_a_loop
    async def run() -> None:
        task = Blocked(context, at=at)
        opening = asyncio.create_task(task.start())
        await asyncio.to_thread(task.begun_call.wait, 5)
        opening.cancel()
        await asyncio.sleep(0.05)
        task.go.set()
        await asyncio.wait([opening])
        assert opening.cancelled()
        await task.stop(Deadline(5))
        assert (task.failed, task.is_left_behind, Producer.opened) == ([], False, 0)
        assert is_free(context)

    run()


def test_a_stop_that_is_itself_cut_short_still_closes_the_producer(context: Any) -> None:
    """The transport's own deadline cancels the stop: an open producer would fence the partition's next owner."""

    @in_a_loop
    async def run() -> None:
        task = Blocked(context, at="work")
        await task.start()
        task.offer(batch())
        await asyncio.to_thread(task.begun_call.wait, 5)
        stopping = asyncio.create_task(task.stop(Deadline(60)))
        await asyncio.sleep(0.05)
        stopping.cancel()
        task.go.set()
        await asyncio.wait([stopping], timeout=3)
        assert stopping.cancelled()
        assert Producer.opened == 0

    run()
