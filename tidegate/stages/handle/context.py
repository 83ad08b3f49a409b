"""What a handler may know beside the columns: where its records are from."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class RecordContext:
    """Where the record is from. `id` is the same whenever the record is handled again: use it as idempotency key."""

    id: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    """Kafka's record timestamp, ms."""
    event_time: int | None
    """ms; None without event time."""


@dataclass(frozen=True, slots=True)
class BatchContext:
    """Where the rows of a batch are from. `ids`: text, one per row and in their order; each is the same whenever its record
    is handled again, in whatever batch: use it as idempotency key.
    """

    topic: str
    partition: int
    ids: pa.Array
