"""The agent that fills the index: its partitions, what it tells of itself, and how it starts and ends. No Faust here.

Where a partition starts is asked of the index, never of the group's committed offset: letters and offset are written in
one transaction, so a SIGKILL at any point repeats work and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import structlog
from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as ConfluentPartition

from dlq.index.letters import index_row
from dlq.index.masking import Masker
from dlq.index.writer import IndexWriter
from tidegate.calls import Calls
from tidegate.clock import Deadline
from tidegate.errors import BrokerUnavailable, CircuitOpen, DependencyError
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.telemetry import metric_defs as m
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter

log = structlog.get_logger(__name__)
EARLIEST = -2  # Kafka's own number for a log's first offset
_OUTAGE_WAIT = (0.5, 10.0)  # seconds: first and longest wait between probes when no breaker says how long
_MOST_ROWS = 10_000  # of one transaction

_QUESTION = 5.0  # seconds that the broker may take for an answer

T = TypeVar("T")
Ack = Callable[[], Awaitable[None]]


class Batch(Protocol):
    """Records of one partition in offset order, as the transport delivers them."""

    @property
    def tp(self) -> TopicPartition: ...

    @property
    def records(self) -> list[Any]: ...

    @property
    def last(self) -> int: ...

    def __len__(self) -> int: ...


class Observer:
    """What the agent tells the world."""

    def __init__(self, group: str, topics: tuple[str, ...]) -> None:
        self.reporter = PrometheusReporter()
        self.metrics = Metrics(self.reporter)
        self.waiting: dict[TopicPartition, str] = {}
        self._group = group
        for topic in topics:
            self.metrics.inc(m.DLQ_INDEXED, {"topic": topic}, 0)

    def lag(self, tp: TopicPartition, records: int) -> None:
        labels = {"consumergroup": self._group, "topic": tp.topic, "partition": str(tp.partition)}
        self.metrics.set(m.CONSUMER_LAG, labels, records)

    def indexed(self, tp: TopicPartition, new: int, seconds: float) -> None:
        self.metrics.inc(m.DLQ_INDEXED, {"topic": tp.topic}, new)
        self.metrics.observe(m.DLQ_INDEX_DURATION, {}, seconds)

    def revoked(self, tps: set[TopicPartition]) -> None:
        for tp in tps:
            self.waiting.pop(tp, None)
            self.metrics.drop(
                m.CONSUMER_LAG, {"consumergroup": self._group, "topic": tp.topic, "partition": str(tp.partition)}
            )


class IndexPartition:
    """One partition of a dead-letter topic at work: batches in order, one transaction at a time."""

    def __init__(self, tp: TopicPartition, upto: int, shared: Indexing) -> None:
        self.tp, self.upto, self._shared = tp, upto, shared
        self.steps, self._doing, self._since = 0, "nothing yet", time.monotonic()
        self._in_thread = Calls(shared.executor)
        self._queue: asyncio.Queue[tuple[Batch, Ack]] = asyncio.Queue()
        self._leaving = asyncio.Event()
        self._busy = asyncio.Lock()
        self._task = asyncio.create_task(self._run(), name=f"index {tp}")

    @property
    def doing(self) -> str:
        """What it is at, in words, and since when."""
        return f"{self._doing} for {time.monotonic() - self._since:.0f} s"

    @property
    def is_left_behind(self) -> bool:
        """Whether a transaction is still under way in a thread. After `stop` nobody waits for it."""
        return self._in_thread.running

    def _begin(self, doing: str) -> None:
        self._doing, self._since = doing, time.monotonic()

    def offer(self, batch: Batch, ack: Ack) -> None:
        self._queue.put_nowait((batch, ack))

    async def stop(self, deadline: Deadline) -> None:
        """Finish the transaction in hand if the deadline allows; the rest is read again by the next owner."""
        self._leaving.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline.remaining()):
                await self._busy.acquire()
        self._task.cancel()
        await asyncio.wait([self._task])
        if not await self._in_thread.finished(deadline):
            log.error("index.left_behind", partition=str(self.tp), doing=self.doing)

    async def _run(self) -> None:
        try:
            while True:
                taken = [await self._queue.get()]
                async with self._busy:
                    while not self._queue.empty() and sum(len(batch) for batch, _ in taken) < _MOST_ROWS:
                        taken.append(self._queue.get_nowait())
                    self._begin(f"indexing up to offset {taken[-1][0].last}")
                    await self._until_done([batch for batch, _ in taken])
                    for _, ack in taken:
                        await ack()
                    self.steps += 1
                    self._begin("nothing: all that came is done")
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._shared.fail(error)

    async def _until_done(self, batches: list[Batch]) -> None:
        """An outage of the database holds the partition up, and keeps its membership: nothing is lost or skipped."""
        wait, observer = _OUTAGE_WAIT[0], self._shared.observer
        while True:
            try:
                await self._shared.guard.call_async(self._in_thread, lambda: self._write(batches))
                break
            except DependencyError as error:
                pause = error.retry_after_ms / 1000 if isinstance(error, CircuitOpen) else wait
                wait = min(wait * 2, _OUTAGE_WAIT[1])
                observer.waiting[self.tp] = str(error)
                log.warning("index.waiting", partition=str(self.tp), seconds=round(pause, 3), error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._leaving.wait()
                if self._leaving.is_set():
                    raise asyncio.CancelledError from None
        if observer.waiting.pop(self.tp, None) is not None:
            log.info("index.resumed", partition=str(self.tp))

    def _write(self, batches: list[Batch]) -> None:
        started, shared = time.monotonic(), self._shared
        records = [record for batch in batches for record in batch.records if record.offset > self.upto]
        rows = [index_row(record, self.tp, shared.masker) for record in records]
        new = shared.writer.write(self.tp, rows, batches[-1].last) if records else 0
        self.upto = max(self.upto, batches[-1].last)
        shared.observer.indexed(self.tp, new, time.monotonic() - started)


class Indexing:
    """The transport's Ownership, and what its partitions share."""

    def __init__(
        self,
        writer: IndexWriter,
        masker: Masker,
        guard: Guard,
        observer: Observer,
        confluent: dict[str, Any],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.writer, self.masker, self.guard, self.observer, self.fail = writer, masker, guard, observer, fail
        self.tasks: dict[TopicPartition, IndexPartition] = {}
        self.opening: set[TopicPartition] = set()
        self._confluent = confluent
        self.executor = ThreadPoolExecutor(2, thread_name_prefix="index")  # rows of one while the other's are written
        self._in_thread = Calls(self.executor)
        self._given_up: list[IndexPartition] = []

    @property
    def left_behind(self) -> list[IndexPartition]:
        """Partitions that were given up in the middle of a transaction which is still under way."""
        self._given_up = [task for task in self._given_up if task.is_left_behind]
        return self._given_up

    async def assigned(self, tps: set[TopicPartition]) -> dict[TopicPartition, int]:
        """Each partition starts after what the index has of it."""
        self.opening = set(tps)
        try:
            starts = await self._patiently(tps, lambda: self.writer.starts(tps))
        finally:
            self.opening = set()
        for tp, upto in starts.items():
            self.tasks[tp] = IndexPartition(tp, upto, self)
        return {tp: upto + 1 if upto >= 0 else EARLIEST for tp, upto in starts.items()}

    async def revoked(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        tasks = [self.tasks.pop(tp) for tp in tps if tp in self.tasks]
        try:
            await asyncio.gather(*(task.stop(deadline) for task in tasks))
        finally:
            self._given_up += [task for task in tasks if task.is_left_behind]
            self.observer.revoked(tps)

    async def out_of_range(self, tp: TopicPartition, offset: int) -> int:
        """What retention has deleted before it was indexed is gone, and said; a topic made anew is read from its start."""
        low, high = await self._patiently({tp}, lambda: self._bounds(tp))
        if offset < low:
            log.error("index.expired", partition=str(tp), wanted=offset, earliest=low)
            return low
        log.error("index.topic_made_anew", partition=str(tp), wanted=offset, end=high)
        await self._patiently({tp}, lambda: self.writer.restart(tp, low - 1))
        if tp in self.tasks:
            self.tasks[tp].upto = low - 1
        return low

    def offer(self, batch: Batch, ack: Ack) -> None:
        task = self.tasks.get(batch.tp)
        if task is not None:  # else it is being revoked: the next owner reads the batch again
            task.offer(batch, ack)

    def close(self) -> None:
        self.executor.shutdown(wait=False, cancel_futures=True)

    async def _patiently(self, tps: set[TopicPartition], ask: Callable[[], T]) -> T:
        """An answer of the index or the broker, however long they are away."""
        while True:
            try:
                answer = await self.guard.call_async(self._in_thread, ask)
                break
            except DependencyError as error:
                log.warning("index.waiting", partitions=sorted(map(str, tps)), error=str(error))
                self.observer.waiting |= dict.fromkeys(tps, str(error))
                pause = error.retry_after_ms / 1000 if isinstance(error, CircuitOpen) else 0.0
                await asyncio.sleep(max(pause, _OUTAGE_WAIT[0]))
        for tp in tps:
            self.observer.waiting.pop(tp, None)
        return answer

    def _bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """The first offset and the end of a partition. Raises BrokerUnavailable."""
        consumer = ConfluentConsumer({**self._confluent, "group.id": "tidegate-bounds"})
        try:
            bounds = consumer.get_watermark_offsets(ConfluentPartition(tp.topic, tp.partition), timeout=_QUESTION)
        except KafkaException as error:
            raise BrokerUnavailable(f"cannot read the ends of {tp}: {error.args[0].str()}") from error
        finally:
            consumer.close()
        if bounds is None:
            raise BrokerUnavailable(f"cannot read the ends of {tp}: no answer within {_QUESTION:.0f} s")
        return bounds
