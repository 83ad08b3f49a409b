"""Dedupe's memory in a store: key → event time of its first record, per source partition.

For an engine without a local state (Spark); a worker keeps its memory in RocksDB and its changelog.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from tidegate.record import TopicPartition
from tidegate.stages.sql import literal
from tidegate.store.tables import StoreTables, qualified

SEEN_STAGING: Final = "tidegate_seen_rows"
CREATE_STAGING: Final = {
    "postgresql": f"CREATE TEMPORARY TABLE IF NOT EXISTS {SEEN_STAGING} (key BYTEA, at BIGINT) ON COMMIT DELETE ROWS",
    "sqlite": f"CREATE TEMPORARY TABLE IF NOT EXISTS {SEEN_STAGING} (key BLOB, at BIGINT)",
}
"""By dialect. Columns are those of SEEN_SCHEMA."""

SEEN_SCHEMA: Final = pa.schema(
    [pa.field("key", pa.binary(), nullable=False), pa.field("at", pa.int64(), nullable=False)]
)


def add_seen(tables: StoreTables, pipeline: str, tp: TopicPartition) -> str:
    """One INSERT of what is staged. A key that is there gets the newer time: of its newest first record."""
    return (
        f"INSERT INTO {qualified(tables.seen)} AS t (pipeline, topic, partition, key, at) "
        f"SELECT {_source(pipeline, tp)}, key, at FROM {SEEN_STAGING} WHERE true "
        "ON CONFLICT (pipeline, topic, partition, key) DO UPDATE SET at = excluded.at"
    )


def forget_seen(tables: StoreTables, pipeline: str, tp: TopicPartition, before: int) -> str:
    """Delete the keys whose first record is older than `before` (ms)."""
    return f"DELETE FROM {qualified(tables.seen)} AS t WHERE {_of(pipeline, tp)} AND t.at < {before}"


def find_seen(tables: StoreTables, pipeline: str, tp: TopicPartition) -> str:
    """Key and time (ms) of the staged keys that are there."""
    return (
        f"SELECT s.key, t.at FROM {SEEN_STAGING} AS s JOIN {qualified(tables.seen)} AS t "
        f"ON t.key = s.key AND {_of(pipeline, tp)}"
    )


def _of(pipeline: str, tp: TopicPartition) -> str:
    return f"t.pipeline = {literal(pipeline)} AND t.topic = {literal(tp.topic)} AND t.partition = {tp.partition}"


def _source(pipeline: str, tp: TopicPartition) -> str:
    return f"{literal(pipeline)}, {literal(tp.topic)}, {tp.partition}"
