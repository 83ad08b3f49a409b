"""Which partitions this worker has, and what happens when they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import structlog

from tidegate.clock import Deadline
from tidegate.config.topics import partials_topic
from tidegate.errors import BrokerUnavailable, OffsetOutOfRange, TidegateError, TopicRecreated
from tidegate.record import TopicPartition
from tidegate.topics import topic_ids
from transport.ownership import EARLIEST
from worker.context import Context, Delivery
from worker.identity import require_same
from worker.merge_partition import MergePartition
from worker.partition import PartitionTask
from worker.restore import log_bounds
from worker.source_partition import SourcePartition

log = structlog.get_logger(__name__)
T = TypeVar("T")
_OUTAGE_WAIT = 1.0  # seconds between questions to a broker that is away; each takes a while itself


class Owner:
    """The transport's Ownership: opens partitions when they are assigned, drains them when they are revoked."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.tasks: dict[TopicPartition, PartitionTask] = {}
        self.opening: set[TopicPartition] = set()
        self._given_up: list[PartitionTask] = []

    @property
    def left_behind(self) -> list[PartitionTask]:
        """Partitions that were given up in the middle of a call which still runs."""
        self._given_up = [task for task in self._given_up if task.is_left_behind]
        return self._given_up

    async def assigned(self, tps: set[TopicPartition]) -> dict[TopicPartition, int]:
        """Open the partitions side by side; each starts after the last offset that its state has applied.

        One that cannot be opened ends the worker; the others are not opened any further, and closed.
        """
        self._context.observer.assigned(tps)
        self.opening = set(tps)
        try:
            if self._context.grow is not None and not tps <= {*self._context.sources(), *self._merging(tps)}:
                await self._patiently(tps, self._context.grow)
            async with asyncio.TaskGroup() as group:
                starts = {tp: group.create_task(self._open(tp), name=f"opening {tp}") for tp in sorted(tps)}
        except TidegateError as error:
            await self._fail(error)
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
            if not isinstance(first, TidegateError):
                raise first from errors
            await self._fail(first)
        finally:
            self.opening = set()
        return {tp: start.result() for tp, start in starts.items()}

    async def revoked(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        """Finish what is in hand, within one deadline for all of them."""
        tasks = [self.tasks.pop(tp) for tp in tps if tp in self.tasks]
        try:
            ended = await asyncio.gather(*(task.stop(deadline) for task in tasks), return_exceptions=True)
        finally:
            self._given_up += [task for task in tasks if task.is_left_behind]
            self._context.observer.revoked(tps)
        for error in ended:  # once all of them are closed
            if error is not None:
                raise error

    async def out_of_range(self, tp: TopicPartition, offset: int) -> int:
        """The log has lost what the state asks for. Skipping is a decision of the pipeline's owner, never ours."""
        low, high = await self._patiently({tp}, lambda: asyncio.to_thread(log_bounds, self._context.confluent, *tp))
        task = self.tasks.get(tp)
        try:
            known = {tp.topic: task.topic_id if task is not None else ""}
            require_same(known, await self._patiently({tp}, lambda: topic_ids(self._context.confluent, [tp.topic])))
        except TopicRecreated as recreated:
            await self._fail(recreated)
        source = self._context.plan.pipeline.source
        if source is not None and source.on_out_of_range == "earliest" and offset < low:
            log.error("offset.skipped", topic=tp.topic, partition=tp.partition, wanted=offset, earliest=low)
            return low
        return await self._fail(OffsetOutOfRange.of(tp, offset, low, high))

    async def _patiently(self, tps: set[TopicPartition], ask: Callable[[], Awaitable[T]]) -> T:
        """The broker's answer, however long it is away."""
        while True:
            try:
                answer = await ask()
                break
            except BrokerUnavailable as error:
                log.warning("partitions.waiting", partitions=sorted(map(str, tps)), error=str(error))
                for tp in tps:
                    self._context.observer.paused(tp, "outage")
                await asyncio.sleep(_OUTAGE_WAIT)
        for tp in tps:
            self._context.observer.resumed(tp)
        return answer

    async def _fail(self, error: TidegateError) -> NoReturn:
        """Stop the worker with this error, and hold the transport until it has stopped: to raise would bury the reason."""
        self._context.fail(error)
        await asyncio.Event().wait()
        raise error

    def offer(self, tp: TopicPartition, delivery: Delivery) -> None:
        task = self.tasks.get(tp)
        if task is not None:  # else it is being revoked: the next owner reads the batch again
            task.offer(delivery)

    def _merging(self, tps: set[TopicPartition]) -> set[TopicPartition]:
        return {tp for tp in tps if tp.topic == partials_topic(self._context.plan.pipeline)}

    async def _open(self, tp: TopicPartition) -> int:
        kind = MergePartition if tp.topic == partials_topic(self._context.plan.pipeline) else SourcePartition
        task = self.tasks[tp] = kind(tp, self._context)
        upto = await task.start()
        if upto >= 0 or task.begun:
            return upto + 1 if upto >= 0 else EARLIEST
        source = self._context.plan.pipeline.source
        if isinstance(task, SourcePartition) and source is not None and source.start_at == "latest":
            begins = self._context.beginning(tp)
            if begins is not None:
                await task.begin_after(begins - 1)
                return begins
        return EARLIEST


def delivery(stream: Any, event: Any) -> Delivery:
    """A batch and the way to acknowledge it, from Faust's event."""

    async def ack() -> None:
        await stream.ack(event)

    return Delivery(event.value, ack)
