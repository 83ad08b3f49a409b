"""The life of one assigned partition: open, take batches one after the other, wait out outages, close.

SourcePartition works on a source topic, MergePartition on the partials topic; both stand on PartitionTask, which knows
nothing of stages: it knows when to try again, when to open the partition anew, and when to acknowledge.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from tidegate.clock import Clock, Deadline
from tidegate.config.topics import changelog_topic
from tidegate.errors import (
    BrokerUnavailable,
    CircuitOpen,
    DependencyError,
    Fenced,
    StoreFenced,
    StoreUnavailable,
)
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.plan import Plan
from tidegate.store.base import Store
from transport.batch import SourceBatch
from worker.identity import changelog_rows
from worker.observe import Observer
from worker.producer import PartitionProducer, transactional_id
from worker.restore import restore
from worker.statedb import PartitionDB
from worker.topics import topic_ids

log = structlog.get_logger(__name__)
T = TypeVar("T")
_TICK = 0.25  # seconds between looks at a quiet partition; a window closes at most this much later than it could
_OUTAGE_WAIT = (0.5, 10.0)  # seconds: first and longest wait between probes when no breaker says how long
_FENCE_WAIT = (
    3.0  # a zombie needs a heartbeat (a third of the session timeout, 10 s by default) to learn that it is one
)


class Consumer(Protocol):
    """What a partition asks of the transport."""

    def pause_partitions_for(self, tps: set[TopicPartition], reason: str) -> None: ...

    def resume_partitions_for(self, tps: set[TopicPartition], reason: str) -> None: ...

    def idle_seconds(self, tp: TopicPartition) -> float | None: ...

    def is_current(self, batch: SourceBatch) -> bool: ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """One batch as Faust delivered it; `ack` says that it is done with."""

    batch: SourceBatch
    ack: Callable[[], Awaitable[None]]


def came_later(_tp: TopicPartition) -> int | None:
    """Of a partition that was not there when the pipeline began: it is read from its own beginning."""
    return None


@dataclass(slots=True)
class Context:
    """What all partitions of a worker share."""

    plan: Plan
    clock: Clock
    owner: str
    state_dir: Path
    executor: Executor
    kafka: Mapping[str, Any]  # aiokafka options
    confluent: dict[str, Any]
    store: Store | None
    store_guard: Guard | None
    observer: Observer
    consumer: Consumer
    fail: Callable[[BaseException], None]  # stops the worker with a non-zero exit code
    sources: Callable[[], list[TopicPartition]]  # all source partitions of the pipeline, here or elsewhere
    pipeline_watermark: Callable[[], int | None]
    partition_counts: dict[str, int] = field(default_factory=dict)
    grow: Callable[[], Awaitable[None]] | None = None  # looks for new source partitions, and makes room for them
    beginning: Callable[[TopicPartition], int | None] = came_later  # where `startAt: latest` begins


class PartitionTask(ABC):
    """One partition, one task: batches in order, one at a time."""

    def __init__(self, tp: TopicPartition, context: Context) -> None:
        self.tp, self.context = tp, context
        self.changelog = (changelog_topic(context.plan.pipeline.pipeline_id, tp.topic), tp.partition)
        self.upto = -1
        self.topic_id = ""  # of the topic itself, known when the partition is open
        self.first_rows: list[tuple[bytes, bytes]] = []  # what goes with the next commit, once
        self.begun = False  # whether the state has a partition row, be it with nothing applied
        self.db: PartitionDB | None = None
        self.producer: PartitionProducer | None = None
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        self._leaving = asyncio.Event()
        self._log = log.bind(topic=tp.topic, partition=tp.partition)

    async def start(self) -> int:
        """Open the partition and begin. Returns the last applied offset (-1: none). Waits out an outage."""
        await self._until_done(self._ensure_open)
        self._task = asyncio.create_task(self._run(), name=f"partition {self.tp}")
        return self.upto

    def offer(self, delivery: Delivery) -> None:
        """Take a batch; the transport holds back more than a few that are not acknowledged."""
        self.context.observer.offered(self.tp, delivery.batch)
        self._queue.put_nowait(delivery)

    async def stop(self, deadline: Deadline) -> None:
        """Finish the batch in hand if the deadline allows, then let go of producer and state. What is not finished is
        not acknowledged, and the next owner starts from the state."""
        self._leaving.set()
        try:
            if self._task is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(deadline.remaining()):
                        await self._busy.acquire()
        finally:  # also when the transport's own deadline cuts this short: an orphan would fence the partition's next owner
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            await self._close()

    async def _run(self) -> None:
        while True:
            deliveries = await self._next()
            async with self._busy:
                try:
                    if deliveries:
                        records = [r for d in deliveries for r in d.batch.records]
                        await self._until_done(lambda: self._work(records))  # noqa: B023
                        for delivery in deliveries:
                            self.context.observer.finished(self.tp, delivery.batch)
                            await delivery.ack()
                    else:
                        await self._until_done(self._tick)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    self.context.fail(error)
                    return

    async def _next(self) -> list[Delivery]:
        """What has been delivered, up to the limits of one batch; nothing after a tick without."""
        try:
            async with asyncio.timeout(_TICK):  # not wait_for: it can swallow the cancellation that ends this task
                first = await self._queue.get()
        except TimeoutError:
            return []
        limits = self.context.plan.pipeline.worker
        taken, records, nbytes = [first], len(first.batch), first.batch.nbytes
        while not self._queue.empty():
            following: SourceBatch = self._queue._queue[0].batch  # type: ignore[attr-defined]
            records, nbytes = records + len(following), nbytes + following.nbytes
            if records > limits.max_batch_records or nbytes > limits.max_batch_bytes:
                break
            taken.append(self._queue.get_nowait())
        stale = [delivery for delivery in taken if not self.context.consumer.is_current(delivery.batch)]
        for delivery in stale:
            self.context.observer.dropped(self.tp, delivery.batch)
        return [delivery for delivery in taken if delivery not in stale]

    async def _until_done(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it is done: an outage pauses the partition and keeps its membership; a fence opens it anew.

        Nothing is dead-lettered here: whatever is a record's own fault never gets this far.
        """
        wait, paused = _OUTAGE_WAIT[0], None
        while True:
            try:
                await self._ensure_open()
                await attempt()
                break
            except Fenced as error:
                self._log.warning("partition.fenced", error=str(error))
                await self._forget(error)
                reason, pause = "fenced", _FENCE_WAIT
            except DependencyError as error:
                await self._forget(error)
                reason = "breaker" if isinstance(error, CircuitOpen) else "outage"
                pause = error.retry_after_ms / 1000 if isinstance(error, CircuitOpen) else wait
                self._log.warning("partition.waiting", reason=reason, seconds=round(pause, 3), error=str(error))
                wait = min(wait * 2, _OUTAGE_WAIT[1])
            if paused not in (None, reason):
                self.context.consumer.resume_partitions_for({self.tp}, paused)
            paused = reason
            self.context.consumer.pause_partitions_for({self.tp}, reason)
            self.context.observer.paused(self.tp, reason)
            await self._wait(pause)
        if paused is not None:
            self.context.consumer.resume_partitions_for({self.tp}, paused)
            self.context.observer.resumed(self.tp)
            self._log.info("partition.resumed", after=paused)

    async def _wait(self, seconds: float) -> None:
        """Sleep until the next probe. A partition that is being revoked does not wait out an outage: the next owner does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
        if self._leaving.is_set():
            raise asyncio.CancelledError

    async def _forget(self, error: Exception) -> None:
        """Drop what can no longer be trusted: after a Kafka error the outcome of the transaction is unknown."""
        if isinstance(error, StoreFenced | StoreUnavailable):
            self._release_claim()
        elif isinstance(error, Fenced | BrokerUnavailable):
            await self._close()

    async def _ensure_open(self) -> None:
        """Producer first: initialising it fences whoever had the partition and settles its last transaction. Then the
        local state is brought up to the changelog's end, then the store is claimed."""
        if self.db is None or self.producer is None:
            await self._open()
        await self._ensure_claim()

    async def _open(self) -> None:
        context = self.context
        producer = PartitionProducer(dict(context.kafka), transactional_id(context.plan.pipeline.pipeline_id, self.tp))
        try:
            await producer.start()
            ids = await topic_ids(context.confluent, [self.tp.topic, self.changelog[0]])
            self.topic_id, changelog_id = ids[self.tp.topic], ids[self.changelog[0]]
            path = context.state_dir / self.tp.topic / str(self.tp.partition)
            self.db = await self._in_thread(lambda: PartitionDB(path, changelog_id=changelog_id))
            await self._restore(self.db)
            self.first_rows = changelog_rows(self.db, self.changelog, changelog_id)
            self.upto = await self._in_thread(lambda: self._load(self.db))  # type: ignore[arg-type]
        except BaseException:
            await producer.stop()
            await self._close()
            raise
        self.producer = producer
        self._log.info("partition.opened", upto=self.upto)

    async def _restore(self, db: PartitionDB) -> None:
        known = db.changelog_offset
        restored = await restore(self.context.confluent, *self.changelog, 0 if known is None else known + 1, db.apply)
        if restored.ahead:
            db.wipe("it is ahead of the changelog, which must have been made anew")
            restored = await restore(self.context.confluent, *self.changelog, 0, db.apply)
        self.context.observer.restored(self.tp, restored.records, restored.seconds)

    async def _close(self) -> None:
        producer, db = self.producer, self.db
        self.producer = self.db = None
        self._release_claim()
        if producer is not None:
            await producer.stop()
        if db is not None:
            await self._in_thread(db.close)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.context.executor, call)

    async def _ensure_claim(self) -> None:  # noqa: B027  most kinds of partition have no store
        """Only source partitions have rows in the store."""

    def _release_claim(self) -> None:  # noqa: B027  most kinds of partition have no store
        """Only source partitions have rows in the store."""

    @abstractmethod
    def _load(self, db: PartitionDB) -> int:
        """Read the state after a restore; returns the last applied offset."""

    @abstractmethod
    async def _work(self, records: list[Any]) -> None:
        """Take records through and commit them. May be called again with the same ones: `upto` says what is done."""

    @abstractmethod
    async def _tick(self) -> None:
        """Nothing came for a while."""
