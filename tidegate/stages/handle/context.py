"""What a record handler may know of the record beside its columns."""

from __future__ import annotations

from dataclasses import dataclass


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
