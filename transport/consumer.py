"""Faust's consumer, delivering one message per partition and fetch instead of one per record.

1. fetch      records of every partition that is neither held nor full, up to `max_batch_records` each
2. split      a fetch above the limits into batches; what cannot be delivered yet is kept, in order
3. deliver    at most `max_in_flight` unacknowledged batches per partition, to the topic's agent
4. ack        whole batches; a partition's offset moves past finished batches only
5. commit     the group's offsets, for monitoring: where to start is asked of the owner of the state
"""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import Any, cast

from faust.types import TP
from faust.types.tuples import ConsumerMessage, Message
from mode import ServiceT
from mode.utils.futures import notify

from tidegate.errors import OffsetOutOfRange
from tidegate.record import TopicPartition
from transport.batch import split
from transport.positions import LOST, OPENING, SEEKING, Position
from transport.rebalance import RebalancingConsumer
from transport.thread import Fetched

_FEW = 16  # the part of a full batch that is still little
# Seconds from one fetch that brought little to the next, while there are batches at work. Fetched as they came, 5 000 records a
# second were 900 messages of six records, each of which costs Faust some 0.3 ms.
_APART = 0.02
_POLL = 0.1  # seconds that one fetch waits for records: what was resumed meanwhile is included no later than this


class Consumer(RebalancingConsumer):
    """Delivers `SourceBatch`es. See transport for an agent that reads them."""

    _next_fetch = 0.0  # monotonic: not before that, while there are batches at work
    rounds = 0
    """Fetches so far: a number that stands still while the flow is active is a thread that hangs."""

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
        self.rounds += 1
        await self._deliver()
        if (rest := self._next_fetch - monotonic()) > 0 and any(p.in_flight for p in self._positions.values()):
            await self._nap(rest)
            return
        wanted = {tp: position.epoch for tp, position in self._positions.items() if self._may_fetch(position)}
        epochs = {tp: position.epoch for tp, position in self._positions.items()}
        if not wanted:
            await self._nap(_POLL / 2)  # look again: an agent that acknowledges by iterating does not wake us
        began, most = monotonic(), self.settings.max_batch_records
        fetched = await self._thread.fetch(wanted, _POLL if wanted else 0.0, most)
        self._take(fetched, epochs)
        few = all(len(records) * _FEW < most for records in fetched.records.values())
        self._next_fetch = began + _APART if few and fetched.records else 0.0
        for tp, offset in fetched.out_of_range.items():
            await self._lost(tp, offset, epochs)

    async def _nap(self, seconds: float) -> None:
        """Unless there is something to do: a batch that is done, a partition that flows again."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _may_fetch(self, position: Position) -> bool:
        position.sweep()
        return not (position.holds or position.held) and self._has_room(position)

    def _has_room(self, position: Position) -> bool:
        """Few and small records do not count: what comes in while a batch is at work is gathered behind it, and goes on as a
        whole. Counted as batches, three of a handful of records would hold up the rest for a whole transaction.
        """
        settings, batches = self.settings, [message.value for message in position.in_flight]
        if len(batches) < settings.max_in_flight:
            return True
        records, nbytes = sum(map(len, batches)), sum(batch.nbytes for batch in batches)
        return records < settings.max_batch_records // _FEW and nbytes < settings.max_batch_bytes // _FEW

    def _take(self, fetched: Fetched, epochs: dict[TopicPartition, int]) -> None:
        """Keep what was fetched, unless the partition was sought or revoked while the fetch was under way."""
        limits = {"max_records": self.settings.max_batch_records, "max_bytes": self.settings.max_batch_bytes}
        now = monotonic()
        current = {tp: position for tp, position in self._positions.items() if position.epoch == epochs.get(tp)}
        for tp in current.keys() & fetched.records.keys():
            current[tp].held.extend(split(tp, fetched.records[tp], epoch=epochs[tp], fetched=now, **limits))
        for tp in current.keys() & fetched.ends.keys():
            if not current[tp].holds & {OPENING, SEEKING}:
                current[tp].learn(fetched.ends[tp])
                self.app.monitor.track_tp_end_offset(TP(*tp), fetched.ends[tp].stable)

    async def _deliver(self) -> None:
        """Round and round, one batch of each partition at a time, so that none waits for another's backlog."""
        delivered = True
        while delivered and self.flow_active:
            delivered = False
            for tp, position in list(self._positions.items()):
                if position.held and not position.holds and self._has_room(position):
                    await self._hand_over(tp, position)
                    delivered = True
                position.sweep()

    async def _hand_over(self, tp: TopicPartition, position: Position) -> None:
        batch = position.held.popleft()
        timestamp = batch.records[-1].timestamp
        message = ConsumerMessage(
            tp.topic, tp.partition, batch.last, timestamp / 1000, 0, None, None, cast(Any, batch), None,
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
        self.pause_partitions_for({tp}, LOST)
        goal = await self.ownership.out_of_range(tp, offset)
        if goal is not None:
            await self.seek_to(tp, goal)

    # 4.-5. Acknowledge, commit

    def ack(self, message: Message) -> bool:
        """A whole batch is done. Batches may be acknowledged in any order.

        One that no agent has taken up counts for nothing: Faust's iterator in pure Python acknowledges what it skips.
        """
        if message.acked or not message.tracked:
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
        for name, position in self._positions.items():
            position.sweep()
            if position.done is not None and position.done != position.reported:
                offsets[TP(*name)] = position.done
        self._acked.clear()  # filled by streams that acknowledge by themselves; `in_flight` knows better
        self._acked_index.clear()
        if not offsets:
            return False
        state = self.app.sensors.on_commit_initiated(self)
        committed = await self._thread.commit(offsets)
        self.settings.committed(committed)
        if committed:
            for tp, offset in offsets.items():
                if known := self._positions.get(TopicPartition(*tp)):
                    known.reported = offset
            self._committed_offset.update(offsets)
            self.app.monitor.on_tp_commit(offsets)
        self.app.sensors.on_commit_completed(self, state)
        return committed

    def _new_offset(self, tp: TP) -> int | None:
        position = self._positions.get(TopicPartition(*tp))
        return position.done if position else None
