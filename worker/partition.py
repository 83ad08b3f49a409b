"""The life of one assigned partition: open, take batches one after the other, wait out outages, close.

SourcePartition works on a source topic, MergePartition on the partials topic; both stand on PartitionTask, which knows
nothing of stages: it knows when to try again, when to open the partition anew, and when to acknowledge.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

import structlog

from tidegate.calls import Calls
from tidegate.clock import Deadline
from tidegate.config.topics import changelog_topic
from tidegate.errors import (
    BrokerUnavailable,
    CircuitOpen,
    DependencyError,
    Fenced,
    LoginRefused,
    StateWentBack,
    StoreFenced,
    StoreHeld,
    StoreUnavailable,
)
from tidegate.record import TopicPartition
from tidegate.topics import topic_ids
from worker.context import Context, Delivery
from worker.deliveries import Deliveries
from worker.identity import changelog_rows
from worker.producer import PartitionProducer, transactional_id
from worker.restore import Restored, restore
from worker.settle import settle
from worker.statedb import PartitionDB

log = structlog.get_logger(__name__)
T = TypeVar("T")
_RESTING = "nothing: all that came is done"
_TICK = 0.25  # seconds between looks at a quiet partition; a window closes at most this much later than it could
_OUTAGE_WAIT = (0.5, 10.0)  # seconds: first and longest wait between probes when no breaker says how long
# A zombie needs a heartbeat (a third of the session timeout, 10 s by default) to learn that it is one.
_FENCE_WAIT = 3.0  # seconds
_HELD_WAIT = 1.0  # seconds between looks whether the pipeline is still held: one small SELECT per partition
_SETTLE = 3.0  # seconds for what was cancelled to end: a producer that is closed in mid-transaction takes 2 of them
_WENT_BACK = (
    "the changelog {}-{} has lost what was committed: the state was at offset {} and is at {} now (has a replica that was not "
    "in sync become leader?). The records between are read once more when the worker starts again"
)
_MOMENT = 1.0  # seconds for a write that was begun just before the deadline


class PartitionTask(ABC):
    """One partition, one task: batches in order, one at a time."""

    def __init__(self, tp: TopicPartition, context: Context) -> None:
        self.tp, self.context = tp, context
        self.changelog = (changelog_topic(context.plan.pipeline.pipeline_id, tp.topic), tp.partition)
        self.upto = -1
        self._unsure = False  # whether a commit has failed since the partition was opened: its outcome is unknown
        self.topic_id = ""  # of the topic itself, known when the partition is open
        self.first_rows: list[tuple[bytes, bytes]] = []  # what goes with the next commit, once
        self.begun = False  # whether the state has a partition row, be it with nothing applied
        self.db: PartitionDB | None = None
        self.producer: PartitionProducer | None = None
        self.steps = 0
        self._doing, self._since = "nothing yet", monotonic()
        self._in_thread = Calls(context.executor)
        self._deliveries = Deliveries(tp, context)
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        self._leaving = asyncio.Event()
        self._log = log.bind(topic=tp.topic, partition=tp.partition)

    @property
    def doing(self) -> str:
        """What it is at, in words, and since when."""
        return f"{self._doing} for {monotonic() - self._since:.0f} s"

    @property
    def is_left_behind(self) -> bool:
        """Whether a call in a thread still runs, and the state with it. After `stop` nothing of it is committed any more."""
        return self._in_thread.running or (self._closing is not None and not self._closing.done())

    def _begin(self, doing: str) -> None:
        self._doing, self._since = doing, monotonic()

    def _rest(self) -> None:
        if self._doing != _RESTING:
            self._begin(_RESTING)

    async def start(self) -> int:
        """Open the partition and begin. Returns the last applied offset (-1: none). Waits out an outage."""
        await self._until_done(self._ensure_open)
        self._rest()
        self._task = asyncio.create_task(self._run(), name=f"partition {self.tp}")
        return self.upto

    def offer(self, delivery: Delivery) -> None:
        """Take a batch; the transport holds back more than a few that are not acknowledged."""
        self._deliveries.put(delivery)

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
                await asyncio.wait([self._task], timeout=_SETTLE)
            await self._close(Deadline(max(deadline.remaining(), _MOMENT)))

    async def _run(self) -> None:
        while True:
            deliveries = await self._deliveries.next(_TICK)
            async with self._busy:
                try:
                    if deliveries:
                        records = [r for d in deliveries for r in d.batch.records]
                        self._begin(f"offsets {records[0].offset} to {records[-1].offset}")
                        await self._until_done(lambda: self._work(records))  # noqa: B023  # awaited before the next turn
                        for delivery in deliveries:
                            self.context.observer.finished(self.tp, delivery.batch)
                            await delivery.ack()
                        self.steps += 1
                    else:
                        await self._until_done(self._tick)
                    self._rest()
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    self.context.fail(error)
                    return

    async def _until_done(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it is done: an outage pauses the partition and keeps its membership; a fence opens it anew.

        Nothing is dead-lettered here: whatever is a record's own fault never gets this far.
        """
        wait, paused, refused = _OUTAGE_WAIT[0], None, None
        while True:
            why = None
            try:
                await self._ensure_open()
                await attempt()
                break
            except StoreHeld as held:
                reason, pause, why = "held", _HELD_WAIT, str(held)
                if paused != reason:
                    self._log.warning(
                        "partition.held", by=held.holder, since=str(held.since), next="waits for its release"
                    )
            except Fenced as error:
                self._log.warning("partition.fenced", error=str(error))
                await self._forget(error)
                reason, pause = "fenced", _FENCE_WAIT
            except DependencyError as error:
                await self._forget(error)
                if not isinstance(error, CircuitOpen):  # which does not say what has opened it
                    refused = str(error).splitlines()[0] if isinstance(error, LoginRefused) else None
                why = refused
                reason = "breaker" if isinstance(error, CircuitOpen) else "outage"
                pause = error.retry_after_ms / 1000 if isinstance(error, CircuitOpen) else wait
                self._log.warning("partition.waiting", reason=reason, seconds=round(pause, 3), error=str(error))
                wait = min(wait * 2, _OUTAGE_WAIT[1])
            if paused not in (None, reason):
                self.context.consumer.resume_partitions_for({self.tp}, paused)
            paused = reason
            self.context.consumer.pause_partitions_for({self.tp}, reason)
            self.context.observer.paused(self.tp, reason, why)
            self._begin(f"waiting ({reason})")
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
            self._unsure = self._unsure or self.producer is not None
            await self._close(Deadline(_SETTLE))

    async def _ensure_open(self) -> None:
        """Producer first: initialising it fences whoever had the partition and settles its last transaction. Then the
        local state is brought up to the changelog's end, then the store is claimed."""
        if self.db is None or self.producer is None:
            await self._open()
        await self._ensure_claim()

    async def _open(self) -> None:
        self._begin("opening: the producer")
        context = self.context
        producer = PartitionProducer(dict(context.kafka), transactional_id(context.plan.pipeline.pipeline_id, self.tp))
        try:
            await producer.start()
            ids = await topic_ids(context.confluent, [self.tp.topic, self.changelog[0]])
            self.topic_id, changelog_id = ids[self.tp.topic], ids[self.changelog[0]]
            self._begin("opening: the local state")
            db = await self._in_thread(lambda: self._open_state(changelog_id))
            self._begin("opening: transactions without an end mark")
            await settle(context, producer, self.changelog, db, self._in_thread, after_outage=self._unsure)
            self._begin("opening: reading the changelog")
            await self._restore(db)
            self.first_rows = changelog_rows(db, self.changelog, changelog_id)
            upto = await self._in_thread(lambda: self._load(db))
            if upto < self.upto:
                raise StateWentBack(_WENT_BACK.format(*self.changelog, self.upto, upto))
            self.upto = upto
        except BaseException:
            await producer.stop()
            await self._close(Deadline(_SETTLE))
            raise
        self.producer, self._unsure = producer, False
        self._log.info("partition.opened", upto=self.upto)

    def _open_state(self, changelog_id: str) -> PartitionDB:
        """In a thread, which cannot be cancelled: kept here, or whoever has gone could not close it."""
        path = self.context.state_dir / self.tp.topic / str(self.tp.partition)
        self.db = PartitionDB(path, changelog_id=changelog_id)
        return self.db

    async def _restore(self, db: PartitionDB) -> None:
        def apply(*chunk: Any) -> None:
            db.apply(*chunk)
            self.steps += 1

        async def read(start: int) -> Restored:  # in a pool of its own: a long changelog must not hold up those at work
            calls, readers = self._in_thread, self.context.readers
            return await restore(self.context.confluent, *self.changelog, start, apply, lambda do: calls(do, readers))

        restored = await read(0 if db.changelog_offset is None else db.changelog_offset + 1)
        if restored.ahead:
            await self._in_thread(lambda: db.wipe("it is ahead of the changelog, which must have been made anew"))
            restored = await read(0)
        self.steps += 1
        self.context.observer.restored(self.tp, restored.records, restored.seconds)

    async def _close(self, deadline: Deadline) -> None:
        """Let go of the producer, then of the state; not of what a call in a thread still uses when the deadline is over."""
        producer, self.producer = self.producer, None
        self._release_claim()
        if producer is not None:
            await producer.stop()
        if not await self._in_thread.finished(deadline):
            self._log.error("partition.left_behind", doing=self.doing, next="its state is closed when that has ended")
            self._closing = self._closing or asyncio.create_task(
                self._close(Deadline(float("inf"))), name=f"closing {self.tp}"
            )
        elif self.db is not None:
            db, self.db = self.db, None
            await self._in_thread(lambda: self._close_state(db))

    def _close_state(self, db: PartitionDB) -> None:
        """In a thread: it writes what is in memory to the disk."""
        db.close()

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
