"""A Faust app on the record-batch transport, in this process, that keeps what it is given."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import faust

from tidegate.clock import Deadline
from tidegate.config.kafka import Kafka
from tidegate.record import TopicPartition
from transport import (
    EARLIEST,
    Consumer,
    SourceBatch,
    TransportSettings,
    batch_topic,
    faust_settings,
    use_transport,
)


class Owner:
    """Remembers how far each partition is, as the state would; and what it was asked."""

    def __init__(self) -> None:
        self.upto: dict[TopicPartition, int] = {}
        self.calls: list[tuple[str, frozenset[TopicPartition]]] = []
        self.lost: list[tuple[TopicPartition, int]] = []
        self.goal: int | None = None
        self.before_release: Callable[[], Any] | None = None

    async def assigned(self, tps: set[TopicPartition]) -> dict[TopicPartition, int]:
        self.calls.append(("assigned", frozenset(tps)))
        return {tp: self.upto[tp] + 1 if tp in self.upto else EARLIEST for tp in tps}

    async def revoked(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        if self.before_release is not None:
            await self.before_release()
        self.calls.append(("revoked", frozenset(tps)))

    async def out_of_range(self, tp: TopicPartition, offset: int) -> int | None:
        self.lost.append((tp, offset))
        return self.goal


async def _go_on(event: Any) -> None:
    """Nothing."""


class Flow:
    """`async with Flow(...)`: the app runs; every batch is acknowledged at once, unless `hold` is set. `on_event`: what the
    agent does with each batch before."""

    def __init__(
        self,
        bootstrap_servers: str,
        directory: Path,
        *topics: str,
        owner: Owner | None = None,
        group: str = "",
        **settings: Any,
    ) -> None:
        self.owner = owner or Owner()
        self.batches: list[SourceBatch] = []
        self.events: list[Any] = []
        self.finished: list[tuple[TopicPartition, int]] = []
        self.hold = False
        self.on_event: Callable[[Any], Awaitable[None]] = _go_on
        options = faust_settings(
            Kafka(bootstrap_servers=bootstrap_servers, session_timeout="6 s", metadata_max_age="1 s")
        )
        self.app = faust.App(
            group or f"flow-{uuid.uuid4().hex[:8]}",
            datadir=str(directory),
            web_enabled=False,
            **{**options, "broker_commit_interval": 0.2},
        )
        use_transport(self.app, TransportSettings(**{"drain_timeout": 3.0, **settings}))
        self.app.tide_ownership = self.owner  # type: ignore[attr-defined]  # set as a worker sets it
        self.app.agent(batch_topic(self.app, *topics), concurrency=1, name=f"keep-{uuid.uuid4().hex[:8]}")(self._keep)

    async def _keep(self, stream: Any) -> None:
        stream = stream.noack()
        async for event in stream.events():
            self.batches.append(event.value)
            self.events.append(event)
            await self.on_event(event)
            if not self.hold:
                self.done(event)

    def done(self, event: Any) -> None:
        self.finished.extend((event.value.tp, record.offset) for record in event.value.records)
        self.owner.upto[event.value.tp] = event.value.last
        event.ack()

    @property
    def consumer(self) -> Consumer:
        assert isinstance(self.app.consumer, Consumer)
        return self.app.consumer

    def committed(self) -> dict[TopicPartition, int]:
        """What the group was told, per partition: the next offset to read."""
        return {TopicPartition(*tp): offset for tp, offset in self.app.monitor.tp_committed_offsets.items()}

    async def __aenter__(self) -> Flow:
        await self.app.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.app.stop()

    def offsets(self) -> dict[TopicPartition, list[int]]:
        """Every offset delivered, per partition, in the order of delivery."""
        found: defaultdict[TopicPartition, list[int]] = defaultdict(list)
        for batch in self.batches:
            found[batch.tp].extend(record.offset for record in batch.records)
        return dict(found)

    def count(self) -> int:
        return sum(len(batch) for batch in self.batches)

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until something is true."""
        deadline = Deadline(seconds)
        while not condition():
            assert not deadline.expired, f"not within {seconds} s; delivered: {self.batches[-5:]}"
            await asyncio.sleep(0.01)
