"""Partitions come and go: opened in the background, drained before they are given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiokafka.errors import KafkaError
from faust.transport.consumer import ensure_TPset
from faust.types import TP

from tidegate.clock import Deadline
from tidegate.record import TopicPartition
from transport.control import PartitionControl
from transport.ownership import Ownership
from transport.positions import AWAY, OPENING, REVOKED, Position

_CLOSING = 10.0  # seconds beyond the drain for letting go of producers and state, which must not be cut short
_ASK_AGAIN = 1.0  # seconds
_LAST_COMMIT = 1.0  # seconds beyond the deadline for what is for monitoring only
T = TypeVar("T")


class RebalancingConsumer(PartitionControl):
    """Asks the owner of the state where partitions start, and lets it finish before they go."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._owned: set[TopicPartition] = set()
        self._opening: asyncio.Task[None] | None = None
        self._releasing = asyncio.Lock()
        super().__init__(*args, **kwargs)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Prepare Faust's parts, then open the partitions in the background: restoring must not outlast the
        rebalance."""
        self._positions = {TopicPartition(*tp): Position() for tp in assigned}
        for position in self._positions.values():
            position.holds.add(OPENING)
        await super().on_partitions_assigned(ensure_TPset(assigned), generation_id)
        if self._positions and not self.app.should_stop:  # else nobody would close them any more
            self._opening = asyncio.ensure_future(self._open(set(self._positions)))

    async def _open(self, tps: set[TopicPartition]) -> None:
        """Ask the owner where to start, and let the partitions flow."""
        try:
            self._owned |= tps
            starts = await self.ownership.assigned(set(tps)) if self.ownership else {}
            starts = {TopicPartition(*tp): offset for tp, offset in starts.items() if tp in tps}
            for tp, epoch in (await self._patiently(tps, lambda: self._seek_all(tps, starts))).items():
                position = self._positions.get(tp)
                if position is not None and position.epoch == epoch:
                    position.holds.discard(OPENING)
            self._wake.set()
        except Exception as error:
            await self.crash(error)

    async def _seek_all(self, tps: set[TopicPartition], starts: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Start every partition where the owner says, or where the group or the log does. Returns those that are still
        ours, with their epochs."""
        found = dict(starts)
        if unknown := {tp: starts.get(tp) for tp in tps if starts.get(tp, -1) < 0}:
            found |= await self._thread.resolve(unknown, self.app.conf.consumer_auto_offset_reset)
        for tp, offset in found.items():
            self._positions[tp].restart(offset)
            self._read_offset[TP(*tp)], self._committed_offset[TP(*tp)] = offset, None
        epochs = {tp: (offset, self._positions[tp].epoch) for tp, offset in found.items()}
        return {tp: epochs[tp][1] for tp in await self._thread.start_at(epochs)}

    async def _patiently(self, tps: set[TopicPartition], ask: Callable[[], Awaitable[T]]) -> T:
        """A broker that goes away just now is no reason to end: it is asked again."""
        while True:
            try:
                answer = await ask()
                break
            except (KafkaError, TimeoutError) as error:
                self.log.warning("transport.waiting error=%r", error)
                self.pause_partitions_for(tps, AWAY)
                await asyncio.sleep(_ASK_AGAIN)
        self.resume_partitions_for(tps, AWAY)
        return answer

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the owner finish and tell the group, before Faust forgets what was done."""
        if not self.app.should_stop:
            await self._release({TopicPartition(*tp) for tp in revoked})
        await super().on_partitions_revoked(revoked)

    async def _release(self, tps: set[TopicPartition]) -> None:
        """Give partitions up. A stop that comes while a rebalance does so waits for it."""
        deadline = getattr(self.app, "tide_deadline", None) or Deadline(self.settings.drain_timeout)
        async with self._releasing:
            await self._give_up(tps, deadline)

    async def _give_up(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        """1. what is being opened is left  2. nothing new is begun  3. the owner finishes  4. the group is told."""
        await self._stop_opening(deadline)
        owned, self._owned = self._owned & tps, self._owned - tps
        for tp in tps & self._positions.keys():
            position = self._positions[tp]
            position.holds.add(REVOKED)
            for message in position.in_flight:
                if not (message.tracked or message.acked):  # still in the agent's queue: to be skipped, not begun
                    message.generation_id = None
        if owned and self.ownership is not None:
            await self._let_the_owner_finish(self.ownership, owned, deadline)
        elif owned:
            await self._drained(owned, deadline)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(deadline.remaining(), _LAST_COMMIT)):
                await self.force_commit()
        for tp in tps:
            if tp in self._positions:
                self._positions.pop(tp).restart(None)
        self._unacked_messages.clear()  # what was not finished is read again by the next owner, from the state

    async def _let_the_owner_finish(self, ownership: Ownership, owned: set[TopicPartition], deadline: Deadline) -> None:
        limit = asyncio.timeout(deadline.remaining() + _CLOSING)
        try:
            async with limit:  # not wait_for: it can swallow a cancellation that comes as the owner finishes
                await ownership.revoked(owned, deadline)
        except TimeoutError as error:
            if not limit.expired():  # the owner's own
                await self.crash(error)
                return
            self.log.error("transport.drain_timeout seconds=%s partitions=%s", self.settings.drain_timeout, owned)
        except Exception as error:
            await self.crash(error)

    async def _drained(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        """Without an owner: wait until what the agents have begun is acknowledged."""
        while not deadline.expired and any(
            TopicPartition(*m.tp) in tps and not m.acked for m in self._unacked_messages
        ):
            await self._wait_for_ack(timeout=min(1.0, deadline.remaining()))

    async def _stop_opening(self, deadline: Deadline) -> None:
        opening, self._opening = self._opening, None
        if opening is not None and not opening.done():
            opening.cancel()
            await asyncio.wait([opening], timeout=deadline.remaining())

    async def wait_empty(self) -> None:
        """On a stop: the same drain, within the one deadline of the stop. (On a rebalance it was done before.)"""
        await self._release(set(self._positions))

    async def perform_seek(self) -> None:
        """Nothing: partitions are sought when they are opened, not to what the group has committed."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust would call a paused partition stuck. `lag` and `in_flight` tell; the worker watches them."""
