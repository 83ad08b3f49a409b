"""Faust's consumer, delivering one message per partition and fetch instead of one per record.

1. fetch      records of every partition that is neither held nor full, up to `max_batch_records` each
2. split      a fetch above the limits into batches; what cannot be delivered yet is kept, in order
3. deliver    at most `max_in_flight` unacknowledged batches per partition, to the topic's agent
4. ack        whole batches; a partition's offset moves past finished batches only
5. commit     the group's offsets, for monitoring: where to start is asked of the owner of the state
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from faust.transport.consumer import ensure_TPset
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage, Message
from mode import ServiceT
from mode.utils.futures import notify

from tidegate.clock import Deadline
from tidegate.errors import OffsetOutOfRange
from tidegate.record import TopicPartition
from worker.transport.batch import SourceBatch, split
from worker.transport.ownership import Ownership, TransportSettings
from worker.transport.positions import Position
from worker.transport.thread import ConsumerThread, Fetched

_POLL = 0.1  # seconds that one fetch waits for records: what was resumed meanwhile is included no later than this
_OPENING, _SEEKING, _LOST, _REVOKED = "opening", "seeking", "out of range", "revoked"


class Consumer(driver.Consumer):
    """Delivers `SourceBatch`es. See worker.transport for an agent that reads them."""

    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._positions: dict[TopicPartition, Position] = {}
        self._owned: set[TopicPartition] = set()
        self._opening: asyncio.Task[None] | None = None
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

    # What the rest of the worker asks

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

    async def seek_to(self, tp: TopicPartition, offset: int) -> bool:
        """Go on at `offset`; drop all that was fetched, and what an agent has not taken up. False: the partition has moved.

        Batches that an agent is working on are not stopped: `is_current` tells them apart, and their ack counts no more.
        """
        position = self._positions.get(tp)
        if position is None:
            return False
        position.restart(offset)
        epoch = position.epoch
        position.holds.add(_SEEKING)
        moved = await self._thread.start_at({tp: offset})
        if position.epoch == epoch:  # else a later seek holds the partition, and lets it go
            position.holds -= {_SEEKING, _LOST}
        self._read_offset[TP(*tp)], self._committed_offset[TP(*tp)] = offset, None
        self._wake.set()
        return tp in moved

    def is_current(self, batch: SourceBatch) -> bool:
        """Whether the batch still follows what was delivered before it: no seek and no rebalance since."""
        position = self._positions.get(batch.tp)
        return position is not None and position.epoch == batch.epoch

    def end_offset(self, tp: TopicPartition) -> int | None:
        """The last stable offset as the newest fetch response gave it; None before the first. `highwaters` asks the broker."""
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
        """Whether the newest fetch at this position came back empty at the end of the log, and all before it was delivered."""
        return self.idle_seconds(tp) is not None

    def idle_seconds(self, tp: TopicPartition) -> float | None:
        """Seconds between the first and the newest empty fetch at the end of the log; None if not at the end, or held."""
        position = self._positions.get(tp)
        return position.idle_seconds if position and position.at_end and not position.holds else None

    def in_flight(self, tp: TopicPartition) -> int:
        """Batches delivered and not acknowledged."""
        position = self._positions.get(tp)
        return len(position.in_flight) if position else 0

    # 1.-3. Fetch, split, deliver

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        if self.app.client_only:
            await super()._drain_messages(fetcher)
            return
        try:
            while not (self.should_stop or fetcher.should_stop):
                if not self.flow_active:
                    await self.wait(cast(Any, self.can_resume_flow))
                    continue
                await self._round()
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _round(self) -> None:
        """Deliver what is there, then fetch what can be delivered next."""
        await self._deliver()
        wanted = {tp for tp, position in self._positions.items() if self._may_fetch(position)}
        epochs = {tp: self._positions[tp].epoch for tp in wanted}
        if not wanted:
            self._wake.clear()
            await self._nap()
        fetched = await self._thread.fetch(wanted, _POLL if wanted else 0.0, self.settings.max_batch_records)
        self._take(fetched, epochs)
        for tp, offset in fetched.out_of_range.items():
            await self._lost(tp, offset, epochs)

    async def _nap(self) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), _POLL / 2)
        except TimeoutError:
            return  # look again: an agent that acknowledges by iterating does not wake us

    def _may_fetch(self, position: Position) -> bool:
        position.sweep()
        return not (position.holds or position.held) and len(position.in_flight) < self.settings.max_in_flight

    def _take(self, fetched: Fetched, epochs: dict[TopicPartition, int]) -> None:
        """Keep what was fetched, unless the partition was sought or revoked while the fetch was under way."""
        limits = {"max_records": self.settings.max_batch_records, "max_bytes": self.settings.max_batch_bytes}
        for tp, records in fetched.records.items():
            position = self._positions.get(tp)
            if records and position is not None and position.epoch == epochs.get(tp):
                position.held.extend(split(tp, records, epoch=position.epoch, **limits))
        for tp, end in fetched.ends.items():
            position = self._positions.get(tp)
            if position is not None and not position.holds & {_OPENING, _SEEKING}:
                position.learn(end)
                self.app.monitor.track_tp_end_offset(TP(*tp), end.stable)

    async def _deliver(self) -> None:
        """Round and round, one batch of each partition at a time, so that none waits for another's backlog."""
        delivered = True
        while delivered and self.flow_active:
            delivered = False
            for tp, position in list(self._positions.items()):
                if position.held and not position.holds and len(position.in_flight) < self.settings.max_in_flight:
                    await self._hand_over(tp, position)
                    delivered = True
                position.sweep()

    async def _hand_over(self, tp: TopicPartition, position: Position) -> None:
        batch = position.held.popleft()
        timestamp = batch.records[-1].timestamp
        message = ConsumerMessage(
            tp.topic, tp.partition, batch.last, timestamp / 1000, 0, (), None, cast(Any, batch), None,
            0, batch.nbytes, TP(*tp), generation_id=self.app.consumer_generation_id,
        )  # fmt: skip
        position.in_flight.append(message)
        position.next = batch.last + 1
        await self.callback(message)
        self._read_offset[TP(*tp)] = batch.last

    async def _lost(self, tp: TopicPartition, offset: int, epochs: dict[TopicPartition, int]) -> None:
        """The log does not have the offset: never reset in silence, the owner of the state decides."""
        position = self._positions.get(tp)
        if position is None or position.epoch != epochs.get(tp):
            return
        self.log.error("transport.out_of_range partition=%s offset=%d", tp, offset)
        if self.ownership is None:
            raise OffsetOutOfRange(f"{tp}: offset {offset} is not in the log, and no owner says where to go on")
        self.pause_partitions_for({tp}, _LOST)
        goal = await self.ownership.out_of_range(tp, offset)
        if goal is not None:
            await self.seek_to(tp, goal)

    # 4.-5. Acknowledge, commit

    def ack(self, message: Message) -> bool:
        """A whole batch is done. Batches may be acknowledged in any order."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        position = self._positions.get(TopicPartition(*message.tp))
        if position is not None:
            position.sweep()
            self._n_acked += 1
        self._wake.set()
        notify(self._waiting_for_ack)
        return True

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Tell the group how far the work is done. For monitoring; a failure is logged and made up for by the next."""
        offsets: dict[TP, int] = {}
        for tp, position in self._positions.items():
            position.sweep()
            if position.done is not None and position.done != position.reported:
                offsets[TP(*tp)] = position.done
        self._acked.clear()  # filled by streams that acknowledge by themselves; `in_flight` knows better
        self._acked_index.clear()
        if not offsets:
            return False
        state = self.app.sensors.on_commit_initiated(self)
        committed = await self._thread.commit(offsets)
        if committed:
            for tp, offset in offsets.items():
                if position := self._positions.get(TopicPartition(*tp)):
                    position.reported = offset
            self._committed_offset.update(offsets)
            self.app.monitor.on_tp_commit(offsets)
        self.app.sensors.on_commit_completed(self, state)
        return committed

    def _new_offset(self, tp: TP) -> int | None:
        position = self._positions.get(TopicPartition(*tp))
        return position.done if position else None

    # Partitions come and go

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Prepare Faust's parts, then open the partitions in the background: restoring must not outlast the rebalance."""
        for tp in {TopicPartition(*tp) for tp in assigned}:
            self._positions[tp] = position = Position()
            position.holds.add(_OPENING)
        await super().on_partitions_assigned(ensure_TPset(assigned), generation_id)
        if self._positions:
            self._opening = asyncio.ensure_future(self._open(set(self._positions)))

    async def _open(self, tps: set[TopicPartition]) -> None:
        """Ask the owner where to start, and let the partitions flow."""
        try:
            self._owned |= tps
            starts = await self.ownership.assigned(set(tps)) if self.ownership else {}
            starts = {TopicPartition(*tp): offset for tp, offset in starts.items()}
            if unknown := tps - starts.keys():
                starts |= await self._thread.default_starts(unknown, self.app.conf.consumer_auto_offset_reset)
            for tp in await self._thread.start_at(starts):
                position = self._positions[tp]
                position.restart(starts[tp])
                self._read_offset[TP(*tp)], self._committed_offset[TP(*tp)] = starts[tp], None
                position.holds.discard(_OPENING)
            self._wake.set()
        except Exception as error:
            await self.crash(error)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the owner finish and tell the group, before Faust forgets what was done."""
        if not self.app.should_stop:
            await self._release({TopicPartition(*tp) for tp in revoked})
        await super().on_partitions_revoked(revoked)

    async def _release(self, tps: set[TopicPartition]) -> None:
        await self._stop_opening()
        deadline = Deadline(self.settings.drain_timeout)
        owned, self._owned = self._owned & tps, self._owned - tps
        for tp in tps & self._positions.keys():
            position = self._positions[tp]
            position.holds.add(_REVOKED)
            for message in position.in_flight:
                if not (message.tracked or message.acked):  # still in the agent's queue: to be skipped, not begun
                    message.generation_id = None
        if owned and self.ownership is not None:
            try:
                await asyncio.wait_for(self.ownership.revoked(owned, deadline), max(deadline.remaining(), 0.001))
            except TimeoutError:
                self.log.error("transport.drain_timeout seconds=%s partitions=%s", self.settings.drain_timeout, owned)
            except Exception as error:
                await self.crash(error)
        elif owned:
            await self._drained(owned, deadline)
        await self.force_commit()
        for tp in tps:
            if position := self._positions.pop(tp, None):
                position.restart(None)
        self._unacked_messages.clear()  # what was not finished is read again by the next owner, from the state

    async def _drained(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        """Without an owner: wait until what the agents have begun is acknowledged."""
        while not deadline.expired and any(TopicPartition(*m.tp) in tps and not m.acked for m in self._unacked_messages):
            await self._wait_for_ack(timeout=min(1.0, deadline.remaining()))

    async def _stop_opening(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None and not opening.done():
            opening.cancel()
            await asyncio.wait([opening])

    async def wait_empty(self) -> None:
        """On a stop: the same drain, with the same deadline. (On a rebalance it was done before.)"""
        await self._release(set(self._positions))

    async def perform_seek(self) -> None:
        """Nothing: partitions are sought when they are opened, not to what the group has committed."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust would call a paused partition stuck. `lag` and `in_flight` tell; the worker watches them."""
