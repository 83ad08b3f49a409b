"""How many records each window misses: added up in the batch's own transaction, and taken off as windows are amended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import pyarrow as pa

from tidegate.record import TopicPartition
from tidegate.stages.sql import literal
from tidegate.store.dialect import SqlDialect
from tidegate.store.tables import WINDOW, StoreTables, qualified

# PostgreSQL's earliest instant, 4714-11-24 BC. A window before it is counted there: the count must never stop a batch.
_EARLIEST: Final = -210_866_803_200_000


class LateWindow(NamedTuple):
    """A window as the late table names it. Times in ms since the epoch."""

    aggregation: str
    start: int
    end: int


class LateCounts(NamedTuple):
    """Of one window and source partition. `missing`: records that are not in its result. `refused`: those of the missing that
    an amendment could not bring in. `amended`: records that were missing and are not any more. `expired`: records that came when
    the window had left the store, or were missing when it did, and are given up."""

    missing: int = 0
    refused: int = 0
    amended: int = 0
    expired: int = 0


def late_window(aggregation: str, start: int, end: int) -> LateWindow:
    """The window under which the late table counts what this one misses."""
    return LateWindow(aggregation, max(start, _EARLIEST), max(end, _EARLIEST))


def counted(late_windows: pa.Table) -> dict[LateWindow, LateCounts]:
    """A batch's late windows (LATE_WINDOWS_SCHEMA) as the late table counts them."""
    missing: dict[LateWindow, int] = {}
    for row in late_windows.to_pylist():
        window = late_window(row["aggregation"], row["window_start"], row["window_end"])
        missing[window] = missing.get(window, 0) + row["missing"]
    return {window: LateCounts(n) for window, n in missing.items()}


def add_late_windows(
    tables: StoreTables, sql: SqlDialect, pipeline: str, tp: TopicPartition, changes: Mapping[LateWindow, LateCounts]
) -> str:
    """One INSERT that adds the changes (there must be some) to the counts of a source partition.

    In sorted order: a worker and a backfill that change the same windows then wait for each other one way round only.
    """
    columns = "pipeline, aggregation, window_start, window_end, topic, partition"
    source = f"{literal(tp.topic)}, {tp.partition}"
    values = ", ".join(
        f"({literal(pipeline)}, {literal(name)}, {sql.instant(str(start))}, {sql.instant(str(end))}, {source}, {numbers})"
        for (name, start, end), counts in sorted(changes.items())
        for numbers in [", ".join(map(str, counts))]
    )
    updates = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in LateCounts._fields)
    return (
        f"INSERT INTO {qualified(tables.late_windows)} AS t ({columns}, {', '.join(LateCounts._fields)}) VALUES {values} "
        f"ON CONFLICT ({columns}) DO UPDATE SET {updates}"
    )


def read_account(tables: StoreTables, sql: SqlDialect, pipeline: str) -> str:
    """Per partition row and late window of it: topic, partition, applied up to, amended up to, the end up to which windows have
    gone (ms, or null), and the window (ms) with its counts, or nulls when it has none. One
    statement, so that all is of one moment."""
    bounds = ", ".join(sql.milliseconds(f"l.{name}") for name in ("window_start", "window_end"))
    counts = ", ".join(f"l.{name}" for name in LateCounts._fields)

    def joined(alias: str) -> str:
        same = " AND ".join(f"{alias}.{name} = p.{name}" for name in ("pipeline", "topic", "partition"))
        return f"AS {alias} ON {same}"

    return (
        f"SELECT p.topic, p.partition, p.upto, coalesce(a.upto, -1), g.upto, l.aggregation, {bounds}, {counts} "
        f"FROM {qualified(tables.partitions)} AS p "
        f"LEFT JOIN {qualified(tables.amended)} {joined('a')} LEFT JOIN {qualified(tables.late_windows)} {joined('l')} "
        f"LEFT JOIN {qualified(tables.timeouts)} AS g ON g.pipeline = p.pipeline "
        f"WHERE p.pipeline = {literal(pipeline)} ORDER BY 1, 2, 6, 7, 8"
    )


def move_amended(tables: StoreTables, pipeline: str, tp: TopicPartition, owner: str, before: int, after: int) -> str:
    """One statement that changes one row if nobody has amended since, and none if somebody has."""
    return (
        f"INSERT INTO {qualified(tables.amended)} AS t (pipeline, topic, partition, upto, owner) "
        f"VALUES ({literal(pipeline)}, {literal(tp.topic)}, {tp.partition}, {after}, {literal(owner)}) "
        "ON CONFLICT (pipeline, topic, partition) DO UPDATE SET upto = excluded.upto, owner = excluded.owner "
        f"WHERE t.upto = {before}"
    )


def find_amended(tables: StoreTables, pipeline: str, tp: TopicPartition) -> str:
    """Up to where a partition is amended, and by whom."""
    return (
        f"SELECT upto, owner FROM {qualified(tables.amended)} "
        f"WHERE pipeline = {literal(pipeline)} AND topic = {literal(tp.topic)} AND partition = {tp.partition}"
    )


def total(counts: Iterable[LateCounts]) -> LateCounts:
    """All of them added up."""
    return LateCounts(*(sum(column) for column in zip(*counts, LateCounts(), strict=True)))


def late_windows_of(tables: StoreTables, sql: SqlDialect, pipeline: str, tp: TopicPartition) -> str:
    """Those of one source partition: aggregation, start and end in ms, how many records are missing."""
    bounds = ", ".join(sql.milliseconds(f"t.{name}") for name in WINDOW)
    return (
        f"SELECT t.aggregation, {bounds}, t.missing FROM {qualified(tables.late_windows)} AS t "
        f"WHERE t.pipeline = {literal(pipeline)} AND t.topic = {literal(tp.topic)} AND t.partition = {tp.partition}"
    )
