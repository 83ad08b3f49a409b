"""What the rest of the worker asks of the consumer: pause, resume, seek, and how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from tidegate.record import TopicPartition
from transport.batch import SourceBatch
from transport.ownership import Ownership, TransportSettings
from transport.positions import AWAY, LOST, OPENING, SEEKING, Position
from transport.thread import ConsumerThread


class PartitionControl(driver.Consumer):
    """A consumer that knows, for each assigned partition, what was delivered and why it is held."""

    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._positions: dict[TopicPartition, Position] = {}
        self._wake = asyncio.Event()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def settings(self) -> TransportSettings:
        return getattr(self.app, "tide_settings", None) or TransportSettings()

    @property
    def ownership(self) -> Ownership | None:
        return getattr(self.app, "tide_ownership", None)

    def pause_partitions_for(self, tps: Iterable[TopicPartition], reason: str) -> None:
        """Deliver nothing of `tps` until each reason is taken back. Membership is kept; nothing is lost or repeated."""
        for tp in tps:
            if position := self._positions.get(TopicPartition(*tp)):
                position.holds.add(reason)

    def resume_partitions_for(self, tps: Iterable[TopicPartition], reason: str) -> None:
        """Take one reason back. A partition with no reason left goes on with the next undelivered record."""
        for tp in tps:
            if position := self._positions.get(TopicPartition(*tp)):
                position.holds.discard(reason)
        self._wake.set()

    def paused_for(self, tp: TopicPartition) -> frozenset[str]:
        """The reasons for which a partition is held; empty if it flows or is not ours."""
        position = self._positions.get(tp)
        return frozenset(position.holds) if position else frozenset()

    async def seek_to(self, tp: TopicPartition, offset: int, *, done: bool = False) -> bool:
        """Go on at `offset`; drop all that was fetched, and what an agent has not taken up. False: the partition has
        moved.

        Batches that an agent is working on are not stopped: `is_current` tells them apart, and their ack counts no
        more. `done`: all before `offset` is done, which the group is told.
        """
        position = self._positions.get(tp)
        if position is None:
            return False
        position.restart(offset)
        position.done = offset if done else None
        epoch = position.epoch
        position.holds.add(SEEKING)
        moved = await self._thread.start_at({tp: (offset, epoch)})
        if position.epoch == epoch:  # else a later seek holds the partition, and lets it go
            position.holds -= {SEEKING, LOST}
        self._read_offset[TP(*tp)], self._committed_offset[TP(*tp)] = offset, None
        self._wake.set()
        return tp in moved

    def is_current(self, batch: SourceBatch) -> bool:
        """Whether the batch still follows what was delivered before it: no seek and no rebalance since."""
        position = self._positions.get(batch.tp)
        return position is not None and position.epoch == batch.epoch

    def end_offset(self, tp: TopicPartition) -> int | None:
        """The last stable offset as the newest fetch response gave it; None before the first. `highwaters` asks the
        broker."""
        position = self._positions.get(tp)
        return position.end.stable if position and position.end else None

    def lag(self, tp: TopicPartition) -> int | None:
        """Offsets between what is done and the end (markers and gaps included); None before the first response."""
        position = self._positions.get(tp)
        if position is None or position.end is None:
            return None
        if position.at_end and not position.in_flight:
            return 0
        done = position.done if position.done is not None else position.next
        return max(0, position.end.stable - done) if done is not None else None

    def at_end(self, tp: TopicPartition) -> bool:
        """Whether the newest fetch at this position came back empty at the end of the log, and all before it was
        delivered."""
        return self.idle_seconds(tp) is not None

    def idle_seconds(self, tp: TopicPartition) -> float | None:
        """Seconds between the first and the newest empty fetch at the end of the log; None if not at the end, or
        held."""
        position = self._positions.get(tp)
        return position.idle_seconds if position and position.at_end and not position.holds else None

    def in_flight(self, tp: TopicPartition) -> int:
        """Batches delivered and not acknowledged."""
        position = self._positions.get(tp)
        return len(position.in_flight) if position else 0

    def is_opening(self, tp: TopicPartition) -> bool:
        """Whether it is being found out where the partition starts, and the broker is there to say it."""
        return self.paused_for(tp) & {OPENING, AWAY} == {OPENING}

    @property
    def silent_for(self) -> float | None:
        """Seconds since the broker answered a fetch of any partition; None before its first answer."""
        answered = [position.end.answered_ms for position in self._positions.values() if position.end]
        return max(0.0, time.time() - max(answered) / 1000) if answered else None
