"""Partitions come and go: opened in the background, drained before they are given up."""

from __future__ import annotations

import asyncio
from typing import Any

from faust.transport.consumer import ensure_TPset
from faust.types import TP

from tidegate.clock import Deadline
from tidegate.record import TopicPartition
from transport.control import PartitionControl
from transport.positions import OPENING, REVOKED, Position

_CLOSING = 10.0  # seconds beyond the drain for letting go of producers and state, which must not be cut short


class RebalancingConsumer(PartitionControl):
    """Asks the owner of the state where partitions start, and lets it finish before they go."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._owned: set[TopicPartition] = set()
        self._opening: asyncio.Task[None] | None = None
        super().__init__(*args, **kwargs)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Prepare Faust's parts, then open the partitions in the background: restoring must not outlast the
        rebalance."""
        self._positions = {TopicPartition(*tp): Position() for tp in assigned}
        for position in self._positions.values():
            position.holds.add(OPENING)
        await super().on_partitions_assigned(ensure_TPset(assigned), generation_id)
        if self._positions:
            self._opening = asyncio.ensure_future(self._open(set(self._positions)))

    async def _open(self, tps: set[TopicPartition]) -> None:
        """Ask the owner where to start, and let the partitions flow."""
        try:
            self._owned |= tps
            starts = await self.ownership.assigned(set(tps)) if self.ownership else {}
            starts = {TopicPartition(*tp): offset for tp, offset in starts.items() if tp in tps}
            if unknown := {tp: starts.get(tp) for tp in tps if starts.get(tp, -1) < 0}:
                starts |= await self._thread.resolve(unknown, self.app.conf.consumer_auto_offset_reset)
            for tp, offset in starts.items():
                self._positions[tp].restart(offset)
                self._read_offset[TP(*tp)], self._committed_offset[TP(*tp)] = offset, None
            epochs = {tp: (offset, self._positions[tp].epoch) for tp, offset in starts.items()}
            for tp in await self._thread.start_at(epochs):
                self._positions[tp].holds.discard(OPENING)
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
            position.holds.add(REVOKED)
            for message in position.in_flight:
                if not (message.tracked or message.acked):  # still in the agent's queue: to be skipped, not begun
                    message.generation_id = None
        if owned and self.ownership is not None:
            try:
                await asyncio.wait_for(self.ownership.revoked(owned, deadline), deadline.remaining() + _CLOSING)
            except TimeoutError:
                self.log.error("transport.drain_timeout seconds=%s partitions=%s", self.settings.drain_timeout, owned)
            except Exception as error:
                await self.crash(error)
        elif owned:
            await self._drained(owned, deadline)
        await self.force_commit()
        for tp in tps:
            if tp in self._positions:
                self._positions.pop(tp).restart(None)
        self._unacked_messages.clear()  # what was not finished is read again by the next owner, from the state

    async def _drained(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        """Without an owner: wait until what the agents have begun is acknowledged."""
        while not deadline.expired and any(
            TopicPartition(*m.tp) in tps and not m.acked for m in self._unacked_messages
        ):
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
