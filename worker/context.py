"""What the partitions of a worker share, and how batches reach them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tidegate.clock import Clock
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.handle import HandlerChain
from tidegate.stages.plan import Plan
from tidegate.store.base import Store
from transport.batch import SourceBatch
from worker.observe import Observer


class Consumer(Protocol):
    """What a partition asks of the transport."""

    def pause_partitions_for(self, tps: set[TopicPartition], reason: str) -> None: ...

    def resume_partitions_for(self, tps: set[TopicPartition], reason: str) -> None: ...

    async def seek_to(self, tp: TopicPartition, offset: int, *, done: bool = False) -> bool: ...

    def idle_seconds(self, tp: TopicPartition) -> float | None: ...

    def is_current(self, batch: SourceBatch) -> bool: ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """One batch as Faust delivered it; `ack` says that it is done with."""

    batch: SourceBatch
    ack: Callable[[], Awaitable[None]]


def came_later(_tp: TopicPartition) -> int | None:
    """Of a partition that was not there when the pipeline began: it is read from its own beginning."""
    return None


@dataclass(slots=True)
class Context:
    """What all partitions of a worker share."""

    plan: Plan
    handlers: HandlerChain
    clock: Clock
    owner: str
    state_dir: Path
    executor: Executor
    stages: Executor  # for computing
    readers: Executor  # for restoring
    kafka: Mapping[str, Any]  # aiokafka options
    confluent: dict[str, Any]
    store: Store | None
    store_guard: Guard | None
    observer: Observer
    consumer: Consumer
    fail: Callable[[BaseException], None]  # stops the worker with a non-zero exit code
    sources: Callable[[], list[TopicPartition]]  # all source partitions of the pipeline, here or elsewhere
    pipeline_watermark: Callable[[], int | None]
    partition_counts: dict[str, int] = field(default_factory=dict)
    grow: Callable[[], Awaitable[None]] | None = None  # looks for new source partitions, and makes room for them
    beginning: Callable[[TopicPartition], int | None] = came_later  # where `startAt: latest` begins
