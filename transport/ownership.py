"""What the transport asks of whoever owns the partitions' state, and the settings it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tidegate.clock import Deadline
from tidegate.record import TopicPartition

EARLIEST, LATEST = -2, -1  # Kafka's own numbers for the log's first offset and its end; any start may be one of them


@runtime_checkable
class Ownership(Protocol):
    """Set as `app.tide_ownership`. Whatever it raises crashes the worker, with a non-zero exit."""

    async def assigned(self, tps: set[TopicPartition]) -> dict[TopicPartition, int]:
        """Partitions that are now ours. Returns the offset to start at for each; one that is missing starts at the
        group's committed offset, else as `auto.offset.reset` says; say EARLIEST or LATEST to have it otherwise.
        Nothing is fetched from `tps` before this returns. Cancelled when they are revoked in the meantime; `revoked`
        follows."""
        ...

    async def revoked(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        """Partitions that are about to be someone else's: finish what is in hand, stop their producers. No new batch of
        theirs is delivered from before this is called. Past the deadline it is cancelled and the rebalance goes on."""
        ...

    async def out_of_range(self, tp: TopicPartition, offset: int) -> int | None:
        """The log does not have `offset` (any more, or yet). Returns where to go on, or None if `seek_to` was or will
        be called; until then the partition is paused for the reason "out of range". Raising stops the worker."""
        ...


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Set as `app.tide_settings`."""

    max_batch_records: int = 8192
    max_batch_bytes: int = 16_777_216
    max_in_flight: int = 3
    """Batches of one partition delivered and not acknowledged: one in work, one committing, one waiting. More, while
    all of them together are few records."""
    drain_timeout: float = 20.0
    """Seconds that `Ownership.revoked` may take, on a rebalance and on a stop."""
    fetch_max_wait_ms: int = 100
    """How long the broker holds an empty fetch. A partition that becomes fetchable meanwhile waits as long."""
    fetch_max_bytes: int = 1_572_864
    """Per partition and fetch."""
    committed: Callable[[bool], None] = lambda _: None
    """Told of each attempt to tell the group how far the work is done, and whether the broker has taken it."""
    kafka_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """aiokafka's connection options (bootstrap_servers, security_protocol, …); they win over Faust's settings."""
