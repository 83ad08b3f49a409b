"""One transactional producer per source partition: changelog, results, dead letters and late records in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.record import TopicPartition


def transactional_id(pipeline_id: str, tp: TopicPartition) -> str:
    """The id that fences: whoever initialises it last owns the partition."""
    return f"tidegate-{pipeline_id}-{tp.topic}-{tp.partition}"


@dataclass(slots=True)
class Rows:
    """Records for one partition of one topic. `keys` and `values` have the same length; a null value is a tombstone.

    `timestamps` are in ms since the epoch; without them the rows carry the time of sending.
    """

    topic: str
    partition: int
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Sequence[tuple[str, bytes]]] | None = None
    timestamps: list[int] | None = None
