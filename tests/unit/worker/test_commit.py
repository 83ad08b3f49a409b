"""The order of a commit, step by step: store, Kafka, local state, acknowledgement; and what a failure of each leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.aio import in_a_loop
from tests.unit.worker import pieces
from tests.unit.worker.pieces import COUNTS, TP, small_plan
from tidegate.calls import Calls
from tidegate.clock import Deadline, ManualClock
from tidegate.config.errorhandling import ErrorHandling
from tidegate.errors import BrokerUnavailable, ProducerFenced, StoreFenced, StoreUnavailable
from tidegate.resilience import Registry
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import PartitionState
from tidegate.stages.handle import HandlerChain
from tidegate.store.base import PartitionRow
from transport.batch import SourceBatch
from worker import partition as module
from worker.commit import commit
from worker.context import Delivery
from worker.effects import Effects
from worker.observe import Observer
from worker.records import Rows
from worker.restore import Restored
from worker.source_partition import SourcePartition
from worker.statedb import PartitionDB

QUIET = {"retry": {"maxAttempts": 1}, "circuitBreaker": {"failureThreshold": 100}}


class World:
    """Store, producer and local state of one partition. `events`: what was written, in order. `faults`: event → errors to
    raise in its place."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.faults: dict[str, list[Exception]] = {}
        self.row = PartitionRow(TP, PartitionState(), 0, "")
        self.offset = 0

    def happens(self, event: str) -> None:
        if self.faults.get(event):
            raise self.faults[event].pop(0)
        self.events.append(event)

    # the store
    def claim(self, tps: Any, owner: str) -> dict[Any, PartitionRow]:
        self.events.append("claim")
        self.row = replace(self.row, epoch=self.row.epoch + 1, owner=owner)
        return {TP: self.row}

    def write(self, batch: Any) -> None:
        self.happens("store")
        assert (batch.epoch, batch.expected_upto) == (self.row.epoch, self.row.state.upto)
        self.row = PartitionRow(TP, batch.state, batch.epoch, "me", worker_upto=batch.state.upto)

    # the producer
    async def start(self) -> None:
        self.events.append("open")

    async def stop(self) -> None:
        """Nothing is connected."""

    async def commit(self, rows: Any) -> dict[tuple[str, int], int]:
        self.happens("kafka")
        self.offset += 1
        return {(part.topic, part.partition): self.offset for part in rows if len(part)}


class Scene:
    """One source partition in this world."""

    def __init__(self, world: World, directory: Path, executor: ThreadPoolExecutor) -> None:
        plan = small_plan()
        self.world, self.acked, self.failures = world, list[int](), list[BaseException]()
        guard = Guard("store", ErrorHandling.model_validate(QUIET), clock=ManualClock(), registry=Registry())
        self.observer = Observer(plan)
        consumer = SimpleNamespace(
            is_current=lambda _: True,
            idle_seconds=lambda _: None,
            pause_partitions_for=lambda _, reason: world.events.append(f"pause {reason}"),
            resume_partitions_for=lambda _, reason: world.events.append(f"resume {reason}"),
        )
        context = SimpleNamespace(
            plan=plan, handlers=HandlerChain(plan.pipeline, plan.decoded),
            clock=ManualClock(), owner="me", state_dir=directory, executor=executor, stages=executor,
            readers=executor, kafka={},
            confluent={}, store=world, store_guard=guard, observer=self.observer, consumer=consumer,
            fail=self.failures.append, partition_counts=dict(COUNTS), pipeline_watermark=lambda: None,
        )  # fmt: skip
        self.task = SourcePartition(TP, cast(Any, context))

    def offer(self, *offsets: int) -> None:
        records = [pieces.record(offset, 1_000 + offset) for offset in offsets]
        given = [
            SimpleNamespace(offset=r.offset, timestamp=r.timestamp, key=r.key, value=r.value, headers=())
            for r in records
        ]

        async def ack() -> None:
            self.world.events.append("ack")
            self.acked.append(offsets[-1])

        self.task.offer(Delivery(SourceBatch(TP, cast(Any, given), 100), ack))

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 (what it waits for has no event)
                await asyncio.sleep(0.005)

    def events(self) -> list[str]:
        """Since the partition was opened."""
        return self.world.events[2:]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    async def nothing(*_: Any, **__: Any) -> Restored:
        return Restored(0, 0.0, 0)

    world = World()
    apply = PartitionDB.write

    def write(db: PartitionDB, *given: Any) -> None:
        world.happens("state")
        apply(db, *given)

    monkeypatch.setattr(module, "PartitionProducer", lambda *_: world)
    monkeypatch.setattr(module, "settle", nothing)
    monkeypatch.setattr(module, "restore", nothing)
    monkeypatch.setattr(module, "topic_ids", pieces.same_topics)
    monkeypatch.setattr(module, "_OUTAGE_WAIT", (0.01, 0.02))
    monkeypatch.setattr(module, "_FENCE_WAIT", 0.01)
    monkeypatch.setattr(PartitionDB, "write", write)
    with ThreadPoolExecutor(2) as executor:
        yield Scene(world, tmp_path, executor)


def test_the_order_of_a_commit(scene: Scene) -> None:
    """The store, Kafka, the local state; the acknowledgement is last."""

    @in_a_loop
    async def run() -> None:
        await scene.task.start()
        scene.offer(1, 2)
        await scene.until(lambda: scene.acked)
        await scene.task.stop(Deadline(5))
        assert scene.world.events == ["open", "claim", "store", "kafka", "state", "ack"]
        assert scene.world.row.state.upto == scene.task.upto == 2

    run()


def test_a_step_may_change_no_row_of_the_state(scene: Scene) -> None:
    """A reload without late windows has nothing to write, or results alone: the local state stays as it is."""
    world, nowhere = cast(Any, scene.world), cast(Any, None)

    @in_a_loop
    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            for effects in (Effects(), Effects(topics=[Rows("results", 0, [b"key"], [b"value"])])):
                await commit(effects, changelog=("log", 0), producer=world, db=nowhere, in_thread=Calls(executor))
        assert scene.world.events == ["kafka", "kafka"]

    run()


@pytest.mark.parametrize("step", ["store", "kafka", "state"])
def test_nothing_is_acknowledged_when_a_step_before_fails(scene: Scene, step: str) -> None:
    """Whatever the step: those after it do not happen, and the worker ends."""

    @in_a_loop
    async def run() -> None:
        scene.world.faults = {step: [AssertionError("a bug")]}
        await scene.task.start()
        scene.offer(1)
        await scene.until(lambda: scene.failures)
        await scene.task.stop(Deadline(5))
        order = ["store", "kafka", "state"]
        assert scene.events() == order[: order.index(step)]
        assert scene.acked == []

    run()


@pytest.mark.parametrize(
    ("step", "error", "between"),
    [
        ("store", StoreUnavailable, ["pause outage", "claim", "resume outage"]),
        ("store", StoreFenced, ["pause fenced", "claim", "resume fenced"]),
        ("kafka", BrokerUnavailable, ["pause outage", "open", "claim", "resume outage"]),
        ("kafka", ProducerFenced, ["pause fenced", "open", "claim", "resume fenced"]),
    ],
    ids=["store away", "store fenced", "broker away", "producer fenced"],
)
def test_an_outage_pauses_and_a_fence_opens_anew(
    scene: Scene, step: str, error: type[Exception], between: list[str]
) -> None:
    """Membership is kept, the claim or all of it is taken again, and the batch is committed once."""

    @in_a_loop
    async def run() -> None:
        scene.world.faults = {step: [error("as it may be")]}
        await scene.task.start()
        scene.offer(1)
        await scene.until(lambda: scene.acked)
        await scene.task.stop(Deadline(5))
        happened = scene.events()
        assert [event for event in happened if event in between] == between
        assert happened.count("store") == 1, "the store skips what it has"
        assert happened[-1] in ("ack", between[-1])
        assert scene.acked == [1]
        assert scene.failures == []
        assert scene.observer.waiting == {}

    run()
