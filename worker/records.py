"""Rows for Kafka, by topic and partition."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.record import OutRow
from worker.producer import Rows


def by_partition(out: Sequence[OutRow]) -> list[Rows]:
    """The rows of each topic and partition, in their order."""
    grouped: dict[tuple[str, int], list[OutRow]] = {}
    for row in out:
        grouped.setdefault((row.topic, row.partition), []).append(row)
    return [
        Rows(
            topic,
            partition,
            [row.key for row in rows],
            [row.value for row in rows],
            [row.headers for row in rows],
            None if rows[0].timestamp is None else [row.timestamp or 0 for row in rows],
        )
        for (topic, partition), rows in grouped.items()
    ]
