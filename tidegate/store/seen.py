"""Dedupe's memory in a store: key → event time of its first record, per source partition.

An engine without a local state (Spark) asks here. A worker asks its own state, and writes here so that the other can go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from tidegate.record import TopicPartition
from tidegate.stages.sql import literal
from tidegate.store.dialect import SqlDialect
from tidegate.store.tables import StoreTables, qualified

SEEN_STAGING: Final = "tidegate_seen_rows"
_CHUNK: Final = 50_000  # keys that are read at a time
CREATE_STAGING: Final = {
    "postgresql": f"CREATE TEMPORARY TABLE IF NOT EXISTS {SEEN_STAGING} (key BYTEA, at BIGINT) ON COMMIT DELETE ROWS",
    "sqlite": f"CREATE TEMPORARY TABLE IF NOT EXISTS {SEEN_STAGING} (key BLOB, at BIGINT)",
}
"""By dialect. Columns are those of SEEN_SCHEMA."""

SEEN_SCHEMA: Final = pa.schema(
    [pa.field("key", pa.binary(), nullable=False), pa.field("at", pa.int64(), nullable=False)]
)


def seen_table(seen: Iterable[tuple[bytes, int]]) -> pa.Table:
    """Keys and times (ms) as SEEN_SCHEMA."""
    pairs = list(seen)
    columns = [pa.array([key for key, _ in pairs], pa.binary()), pa.array([at for _, at in pairs], pa.int64())]
    return pa.Table.from_arrays(columns, schema=SEEN_SCHEMA)


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


def seen_after(tables: StoreTables, sql: SqlDialect, pipeline: str, tp: TopicPartition, key: bytes) -> str:
    """The next keys after `key`, in their order, with their times (ms)."""
    return (
        f"SELECT t.key, t.at FROM {qualified(tables.seen)} AS t WHERE {_of(pipeline, tp)} AND t.key > {sql.bytes(key)} "
        f"ORDER BY t.key LIMIT {_CHUNK}"
    )


def _of(pipeline: str, tp: TopicPartition) -> str:
    return f"t.pipeline = {literal(pipeline)} AND t.topic = {literal(tp.topic)} AND t.partition = {tp.partition}"


def _source(pipeline: str, tp: TopicPartition) -> str:
    return f"{literal(pipeline)}, {literal(tp.topic)}, {tp.partition}"
