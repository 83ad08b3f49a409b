"""A partition's records as they come in and go out: aiokafka's as one Arrow batch, rows for Kafka by topic and partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tidegate.record import OutRow, TopicPartition
from tidegate.stages.batch import RAW_SCHEMA, RawBatch
from worker.producer import Rows


def raw_batch(tp: TopicPartition, records: Sequence[Any]) -> RawBatch:
    """aiokafka's records as one Arrow batch."""
    headers = [[{"key": k, "value": v} for k, v in r.headers] if r.headers else None for r in records]
    columns = [
        pa.array([r.offset for r in records], pa.int64()),
        pa.array([r.timestamp for r in records], pa.int64()),
        pa.array([r.key for r in records], pa.binary()),
        pa.array([r.value for r in records], pa.binary()),
        pa.array(headers, RAW_SCHEMA.field("headers").type),
    ]
    return RawBatch(tp, pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA))


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
