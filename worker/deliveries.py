"""What has been delivered to one partition and is not begun yet, and how much of it makes one batch."""

from __future__ import annotations

import asyncio
from collections import deque

from tidegate.record import TopicPartition
from worker.context import Context, Delivery


class Deliveries:
    """In the order in which they came. Put and taken in one event loop."""

    def __init__(self, tp: TopicPartition, context: Context) -> None:
        self._tp, self._context = tp, context
        self._waiting: deque[Delivery] = deque()
        self._came = asyncio.Event()

    def put(self, delivery: Delivery) -> None:
        self._context.observer.offered(self._tp, delivery.batch)
        self._waiting.append(delivery)
        self._came.set()

    async def next(self, within: float) -> list[Delivery]:
        """Up to the limits of one batch, but at least one delivery; nothing when none comes within so many seconds.

        What was fetched before the partition was moved elsewhere (a seek, a rebalance) is dropped.
        """
        try:
            async with asyncio.timeout(within):  # not wait_for: it can swallow the cancellation of whoever waits
                await self._came.wait()
        except TimeoutError:
            return []
        taken = self._take()
        stale = [delivery for delivery in taken if not self._context.consumer.is_current(delivery.batch)]
        for delivery in stale:
            self._context.observer.dropped(self._tp, delivery.batch)
        return [delivery for delivery in taken if delivery not in stale]

    def _take(self) -> list[Delivery]:
        limits, waiting = self._context.plan.pipeline.worker, self._waiting
        taken = [waiting.popleft()]
        records, nbytes = len(taken[0].batch), taken[0].batch.nbytes
        while waiting:
            records, nbytes = records + len(waiting[0].batch), nbytes + waiting[0].batch.nbytes
            if records > limits.max_batch_records or nbytes > limits.max_batch_bytes:
                break
            taken.append(waiting.popleft())
        if not waiting:
            self._came.clear()
        return taken
