"""What has been delivered to one partition and is not begun yet, and how much of it makes one batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from tidegate.record import TopicPartition
from worker.context import Context, Delivery

# The part of a full batch that is still little: it may wait for `commitInterval` to be over.
_FEW = 16


class Deliveries:
    """In the order in which they came. Put and taken in one event loop.

    A transaction costs 10 to 20 ms of processor time however little is in it (stages, three requests, end marks). Without
    a least interval a worker that gets 200 records a second makes as many as it can, and uses a core for them.
    """

    def __init__(self, tp: TopicPartition, context: Context) -> None:
        self._tp, self._context = tp, context
        self._waiting: deque[Delivery] = deque()
        self._records, self._nbytes = 0, 0  # of all that waits
        self._came, self._enough = asyncio.Event(), asyncio.Event()
        self._interval = context.plan.pipeline.worker.commit_interval / 1000
        self._due = 0.0  # when the next batch may begin, by the event loop's clock

    def put(self, delivery: Delivery) -> None:
        self._context.observer.offered(self._tp, delivery.batch)
        self._waiting.append(delivery)
        self._records, self._nbytes = self._records + len(delivery.batch), self._nbytes + delivery.batch.nbytes
        self._came.set()
        if not self._are_few():
            self._enough.set()

    async def next(self, within: float) -> list[Delivery]:
        """Up to the limits of one batch, but at least one delivery; nothing when none comes within so many seconds.

        What was fetched before the partition was moved elsewhere (a seek, a rebalance) is dropped.
        """
        try:
            async with asyncio.timeout(within):  # not wait_for: it can swallow the cancellation of whoever waits
                await self._came.wait()
        except TimeoutError:
            return []
        await self._gather()
        taken = self._take()
        stale = [delivery for delivery in taken if not self._context.consumer.is_current(delivery.batch)]
        for delivery in stale:
            self._context.observer.dropped(self._tp, delivery.batch)
        return [delivery for delivery in taken if delivery not in stale]

    async def _gather(self) -> None:
        """Let a few records wait for others until the interval since the last batch began is over."""
        clock = asyncio.get_running_loop().time
        if not self._enough.is_set() and clock() < self._due:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._due):
                    await self._enough.wait()
        self._due = clock() + self._interval

    def _are_few(self) -> bool:
        limits = self._context.plan.pipeline.worker
        return self._records * _FEW < limits.max_batch_records and self._nbytes * _FEW < limits.max_batch_bytes

    def _take(self) -> list[Delivery]:
        limits, waiting = self._context.plan.pipeline.worker, self._waiting
        taken, records, nbytes = list[Delivery](), 0, 0
        while waiting:
            more = records + len(waiting[0].batch), nbytes + waiting[0].batch.nbytes
            if taken and (more[0] > limits.max_batch_records or more[1] > limits.max_batch_bytes):
                break
            taken.append(waiting.popleft())
            records, nbytes = more
        self._records, self._nbytes = self._records - records, self._nbytes - nbytes
        if not waiting:
            self._came.clear()
        if not waiting or self._are_few():
            self._enough.clear()
        return taken
