"""Which results of one aggregation have changed, and what they are: the SQL of publishing (published.py). PostgreSQL only.

Windows and groups are staged in a temporary table, found or given, and joined with the partials by their key's index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Table
from sqlalchemy.engine import Dialect

from tidegate.record import Lane, TopicPartition
from tidegate.stages.sql import literal, quote
from tidegate.store.copying import as_instants, copy_in, copy_out
from tidegate.store.dialect import PostgresDialect
from tidegate.store.promotions import between, removed_since
from tidegate.store.raw import execute, fetch
from tidegate.store.statements import ROW, Statements
from tidegate.store.tables import WINDOW, AggregationTables, qualified
from tidegate.store.totals import Totals

if TYPE_CHECKING:
    from tidegate.store.publication import Position


class Changed:
    """Of one aggregation. Each call but `all` and `removed` is about what was staged since the transaction began."""

    def __init__(self, tables: AggregationTables, promoted: Table, database: Dialect) -> None:
        self._tables, self._promoted, self._sql = tables, promoted, PostgresDialect()
        self._totals = Totals(tables, self._sql)
        self._staging = Statements(tables, self._sql, database).key_staging
        self._keys = quote(self._staging.name)
        self._partials = qualified(tables.partials)

    def stage(self, connection: Connection) -> None:
        """Begin with nothing."""
        execute(connection, self._staging.create)

    def take(self, connection: Connection, touched: pa.Table) -> None:
        """These windows (ms) and groups; the same may be there more than once."""
        types = {column.name: column.type for column in self._tables.plan.group}
        wanted = pa.schema([(name, types.get(name, pa.int64())) for name in self._tables.keys])
        keys = touched.select(wanted.names).cast(wanted)
        numbered = as_instants(keys).add_column(0, ROW, pa.array([0] * keys.num_rows, pa.int32()))
        copy_in(connection, self._keys, numbered)

    def find(self, connection: Connection, after: Mapping[TopicPartition, Position]) -> None:
        """Those with records of offsets after these positions: in the lane `late` after what was amended then."""
        if not after:
            return
        values = ", ".join(
            f"({literal(tp.topic)}, {tp.partition}, CAST({at.upto} AS BIGINT), CAST({at.amended} AS BIGINT))"
            for tp, at in after.items()
        )
        self._insert(
            connection,
            f"JOIN (VALUES {values}) AS a (topic, partition, upto, amended) ON t.topic = a.topic AND t.partition = a.partition "
            f"WHERE t.upto > CASE WHEN t.lane = {literal(Lane.LATE.value)} THEN a.amended ELSE a.upto END",
        )

    def add_closed(self, connection: Connection, before: int | None, closed: int | None) -> None:
        """Those of windows that end after `before` (ms; None: any) and not later than `closed` (None: no window)."""
        if closed is None or closed == before:
            return
        size = self._tables.plan.size
        bounds = [f"t.window_start <= {self._sql.instant(str(closed - size))}"]
        if before is not None:
            bounds.append(f"t.window_start > {self._sql.instant(str(before - size))}")
        self._insert(connection, f"WHERE {' AND '.join(bounds)}")

    def add_promoted(self, connection: Connection, after: int, upto: int) -> None:
        """Those that promotions after `after`, up to `upto`, have replaced or taken away; the latter have no results."""
        if upto > after:
            self._insert(connection, f"WHERE {between(after, upto)}", self._promoted)

    def removed(self, connection: Connection, after: int, upto: int, closed: int | None) -> pa.Table:
        """The results that these promotions have taken away: with no `records` and no measures, and the next revision."""
        found: list[pa.Table] = []
        if upto > after:
            query = removed_since(self._promoted, self._tables, after, upto)
            columns = {*self._tables.keys, "upto", "revision"}
            shape = pa.schema([field for field in self._schema if field.name in columns])
            found = [self._gone(table) for table in copy_out(connection, query, shape)]
        return self._finished(found, closed)

    def _gone(self, table: pa.Table) -> pa.Table:
        rows, given = table.num_rows, {name: table[name] for name in table.column_names}
        given |= {"records": pa.array([0] * rows, pa.int64()), "revision": pc.add(table["revision"], 1)}
        columns = [given.get(field.name, pa.nulls(rows, field.type)) for field in self._schema]
        return pa.Table.from_arrays(columns, schema=self._schema)

    def keep_closed(self, connection: Connection, closed: int | None) -> None:
        """Without those of windows that are open."""
        late = "" if closed is None else f" WHERE window_end > {self._sql.instant(str(closed))}"
        execute(connection, f"DELETE FROM {self._keys}{late}")

    def read(self, connection: Connection, closed: int | None) -> pa.Table:
        """The results of what is staged. Windows that end up to `closed` (ms) are final."""
        execute(connection, f"ANALYZE {self._keys}")
        nulls = ", ".join(f"{quote(name)} IS NULL" for name in self._tables.group)
        patterns = fetch(connection, f"SELECT DISTINCT {nulls or 'true'} FROM {self._keys}")
        if not patterns:
            return self._finished([], closed)
        query = self._totals.results(self._keys, patterns if self._tables.group else [()])
        return self._finished(list(copy_out(connection, query, self._schema)), closed)

    def all(self, connection: Connection, closed: int | None) -> pa.Table:
        """All results there are."""
        execute(connection, "SET LOCAL statement_timeout = 0")
        return self._finished(list(copy_out(connection, self._totals.results(None, ()), self._schema)), closed)

    def last_end(self, connection: Connection) -> int | None:
        """When the last window ends (ms); None: there is none."""
        start = self._sql.milliseconds("max(window_start)")
        found = fetch(connection, f"SELECT {start} FROM {self._partials}")[0][0]
        return None if found is None else int(found) + self._tables.plan.size

    @property
    def _schema(self) -> pa.Schema:
        """Of the results, without `final`."""
        plan = self._tables.plan
        return pa.schema(
            [
                *((name, pa.int64()) for name in WINDOW),
                *((column.name, column.type) for column in plan.group),
                *((measure.name, measure.result_type) for measure in plan.measures),
                *((name, pa.int64()) for name in ("records", "revision")),
                ("upto", pa.string()),
            ]
        )

    def _finished(self, tables: list[pa.Table], closed: int | None) -> pa.Table:
        table = pa.concat_tables(tables) if tables else self._schema.empty_table()
        if closed is None:
            return table.append_column("final", pa.array([False] * table.num_rows, pa.bool_()))
        return table.append_column("final", pc.less_equal(table["window_end"], pa.scalar(closed, pa.int64())))

    def _insert(self, connection: Connection, where: str, source: Table | None = None) -> None:
        """Stage the keys of rows `t`, of the partials unless told otherwise."""
        table = self._partials if source is None else qualified(source)
        keys = ", ".join(map(quote, self._tables.keys))
        shown = ", ".join(f"t.{quote(name)}" for name in self._tables.keys)
        execute(
            connection,
            f"INSERT INTO {self._keys} ({quote(ROW)}, {keys}) SELECT DISTINCT 0, {shown} FROM {table} AS t {where}",
        )
