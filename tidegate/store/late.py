"""How many records each window misses: added up in the batch's own transaction."""

from __future__ import annotations

from tidegate.record import TopicPartition
from tidegate.stages.sql import literal
from tidegate.store.base import StoreBatch
from tidegate.store.dialect import SqlDialect
from tidegate.store.tables import WINDOW, StoreTables, qualified

# PostgreSQL's earliest instant, 4714-11-24 BC. A window before it is counted there: the count must never stop a batch.
_EARLIEST = -210_866_803_200_000


def late_windows(tables: StoreTables, sql: SqlDialect, pipeline: str, batch: StoreBatch) -> str:
    """One INSERT that adds the batch's late windows (there must be some) to those of its source partition."""
    assert batch.late_windows is not None, "there are late windows"
    missing: dict[tuple[str, int, int], int] = {}
    for row in batch.late_windows.to_pylist():
        key = (row["aggregation"], max(row["window_start"], _EARLIEST), max(row["window_end"], _EARLIEST))
        missing[key] = missing.get(key, 0) + row["missing"]
    source = f"{literal(batch.tp.topic)}, {batch.tp.partition}"
    values = ", ".join(
        f"({literal(pipeline)}, {literal(name)}, {', '.join(sql.instant(str(ms)) for ms in window)}, {source}, {n})"
        for (name, *window), n in missing.items()
    )
    columns = "pipeline, aggregation, window_start, window_end, topic, partition"
    return (
        f"INSERT INTO {qualified(tables.late_windows)} AS t ({columns}, missing) VALUES {values} "
        f"ON CONFLICT ({columns}) DO UPDATE SET missing = t.missing + excluded.missing"
    )


def late_windows_of(tables: StoreTables, sql: SqlDialect, pipeline: str, tp: TopicPartition) -> str:
    """Those of one source partition: aggregation, start and end in ms, how many records are missing."""
    bounds = ", ".join(sql.milliseconds(f"t.{name}") for name in WINDOW)
    return (
        f"SELECT t.aggregation, {bounds}, t.missing FROM {qualified(tables.late_windows)} AS t "
        f"WHERE t.pipeline = {literal(pipeline)} AND t.topic = {literal(tp.topic)} AND t.partition = {tp.partition}"
    )
