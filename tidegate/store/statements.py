"""One aggregation's SQL for writing: staged rows added to the partials, existing sketches read, estimates set.

The same text for both databases but for the fragments in dialect.py. There are no parameters: what varies is staged.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlalchemy import BigInteger, Column, Integer, MetaData, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateTable

from tidegate.stages.plan import MeasurePlan, PartialColumn
from tidegate.stages.sql import quote
from tidegate.store.dialect import SqlDialect
from tidegate.store.tables import WINDOW, AggregationTables, null_safe, qualified

ESTIMATE = "__estimate"  # a staged column beside `{measure}__sketch`, for the estimates table
ROW = "_row"  # number of a staged key


@dataclass(frozen=True, slots=True)
class Staging:
    """A temporary table: its name, what creates it, its columns in order."""

    name: str
    create: str
    columns: tuple[str, ...]


class Statements:
    """Everything that is executed for one aggregation."""

    def __init__(self, tables: AggregationTables, sql: SqlDialect, database: Dialect) -> None:
        self.tables, self._sql, self._database = tables, sql, database
        self.partials = qualified(tables.partials)
        estimates = [f"{name}{ESTIMATE}" for name in tables.sketches]
        columns = [column for column in tables.partials.columns if column.name != "revision"]
        self.staging = self._temporary("rows", [*columns, *(Column(name, BigInteger) for name in estimates)])
        self.key_staging = self._temporary("keys", [Column(ROW, Integer), *(tables.partials.c[k] for k in tables.keys)])
        self.merge = self._merge()

    def _temporary(self, purpose: str, columns: Sequence[Column[Any]]) -> Staging:
        """Kept for the connection's life, emptied by each commit: creating one per batch would bloat the catalogue."""
        shape = ",".join(f"{column.name} {column.type!r}" for column in columns)
        name = f"tidegate_{purpose}_{zlib.crc32(f'{self.tables.view} {shape}'.encode()):08x}"
        table = Table(
            name,
            MetaData(),
            *(Column(column.name, column.type) for column in columns),
            prefixes=["TEMPORARY"],
            postgresql_on_commit="DELETE ROWS",
        )
        create = str(CreateTable(table, if_not_exists=True).compile(dialect=self._database))
        return Staging(name, create, tuple(column.name for column in columns))

    def _merge(self) -> str:
        """Additive: every staged row is added to the partial that is there, whose revision grows by one."""
        columns = [name for name in self.staging.columns if not name.endswith(ESTIMATE)]
        target = ", ".join(map(quote, [*columns, "revision"]))
        updates = ", ".join(f"{quote(name)} = {value}" for name, value in self._updates())
        return (
            f"INSERT INTO {self.partials} AS t ({target}) "
            f"SELECT {', '.join(map(quote, columns))}, 1 FROM {quote(self.staging.name)} WHERE true "
            f"ON CONFLICT ({self._conflict(self.tables.partials, self.tables.identity)}) DO UPDATE SET {updates}"
        )

    def _updates(self) -> Iterator[tuple[str, str]]:
        for measure in self.tables.plan.measures:
            for partial in measure.partials:
                yield partial.name, self._merged(measure, partial)
        yield "records", "t.records + excluded.records"
        yield "upto", self._sql.greatest("t.upto", "excluded.upto")
        yield "revision", "t.revision + 1"

    def _merged(self, measure: MeasurePlan, partial: PartialColumn) -> str:
        old, new = f"t.{quote(partial.name)}", f"excluded.{quote(partial.name)}"
        part = part_of(partial)
        if part in ("n", "sum"):
            return f"coalesce({self._sql.add(old, new, partial.type)}, {old}, {new})"
        if part == "min":
            return self._sql.least(old, new)
        if part == "max":
            return self._sql.greatest(old, new)
        if part == "sketch":
            return new  # united with the old one before it was staged (sketches.py)
        order = [quote(f"{measure.name}__{suffix}") for suffix in ("at", "offset")]
        sign = "<" if measure.kind == "first" else ">"
        ours, theirs = (", ".join(f"{side}.{column}" for column in order) for side in ("excluded", "t"))
        wins = f"t.{order[0]} IS NULL OR ({ours}) {sign} ({theirs})"
        return f"CASE WHEN {wins} THEN {new} ELSE {old} END"

    def _conflict(self, table: Table, names: tuple[str, ...]) -> str:
        """The columns of the unique index; the SQLite one is on expressions."""
        return ", ".join(null_safe(table, names) if self._database.name == "sqlite" else map(quote, names))

    def lock_estimates(self) -> str:
        """Make and lock the estimates of the staged keys, in their order.

        Partitions that share a group then commit one after the other, and the second sees the first one's sketches. All
        writers lock in the same order, so none waits for one that waits for it.
        """
        keys, estimates = ", ".join(map(quote, self.tables.keys)), self._estimates()
        return (
            f"INSERT INTO {qualified(estimates)} ({keys}) "
            f"SELECT DISTINCT {keys} FROM {quote(self.key_staging.name)} WHERE true ORDER BY {keys} "
            f"ON CONFLICT ({self._conflict(estimates, self.tables.keys)}) "
            "DO UPDATE SET window_end = excluded.window_end"
        )

    def set_estimates(self) -> str:
        keys, estimates = ", ".join(map(quote, self.tables.keys)), self._estimates()
        names = ", ".join(map(quote, self.tables.sketches))
        staged = ", ".join(quote(f"{name}{ESTIMATE}") for name in self.tables.sketches)
        updates = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in self.tables.sketches)
        return (
            f"INSERT INTO {qualified(estimates)} ({keys}, {names}) "
            f"SELECT DISTINCT {keys}, {staged} FROM {quote(self.staging.name)} WHERE true "
            f"ON CONFLICT ({self._conflict(estimates, self.tables.keys)}) DO UPDATE SET {updates}"
        )

    def read_sketches(self, null_patterns: Iterable[tuple[bool, ...]]) -> str:
        """Existing sketches of the staged keys: key number, topic, partition, lane, then a sketch per measure.

        `null_patterns`: which group columns are null, for each combination among the staged keys. One arm per pattern,
        because an index finds `=` and IS NULL but not IS NOT DISTINCT FROM.
        """
        names = ", ".join(f"t.{quote(f'{name}__sketch')}" for name in self.tables.sketches)
        return " UNION ALL ".join(
            f"SELECT k.{quote(ROW)}, t.topic, t.partition, t.lane, {names} FROM {quote(self.key_staging.name)} AS k "
            f"JOIN {self.partials} AS t ON {same_key(self.tables, pattern)}"
            for pattern in null_patterns
        )

    def _estimates(self) -> Table:
        assert self.tables.estimates is not None, "only for aggregations with approxDistinct"
        return self.tables.estimates


def part_of(partial: PartialColumn) -> str:
    """`sum` of `total__sum`."""
    return partial.name.rsplit("__", 1)[1]


def same_key(tables: AggregationTables, pattern: Sequence[bool]) -> str:
    """SQL: rows `t` and `k` are of one window and group. `pattern`: which group columns are null, since an index finds IS NULL
    but not IS NOT DISTINCT FROM."""
    conditions = [f"t.{name} = k.{name}" for name in WINDOW]
    for name, is_null in zip(tables.group, pattern, strict=True):
        column = quote(name)
        conditions.append(f"t.{column} IS NULL AND k.{column} IS NULL" if is_null else f"t.{column} = k.{column}")
    return " AND ".join(conditions)


def null_patterns(keys: pa.Table, group: Sequence[str]) -> list[tuple[bool, ...]]:
    """Which group columns are null: every combination that occurs. [()] without group columns."""
    if not group:
        return [()]
    masks = pa.table({str(i): keys.column(name).is_null() for i, name in enumerate(group)})
    distinct = masks.group_by(masks.column_names).aggregate([])
    return [tuple(row.values()) for row in distinct.select(masks.column_names).to_pylist()]
