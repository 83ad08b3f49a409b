"""The SQLite store: the same tables in one file, for tests and small use. One writer at a time.

What is different, and said: decimals are text added up by `decimal_add` and `decimal_sum` (exact; the `sqlite3` shell
has both), timestamps are microseconds since the epoch, and a double that is not finite is refused: SQLite has no NaN.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from datetime import date
from decimal import Context, Decimal, Inexact, InvalidOperation
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import URL

from tidegate.clock import Clock
from tidegate.config.sinks import SqliteSink
from tidegate.errors import ConfigError
from tidegate.record import TopicPartition
from tidegate.stages.plan import Plan
from tidegate.stages.sql import quote
from tidegate.store.check import make_or_check
from tidegate.store.dialect import SqliteDialect
from tidegate.store.raw import execute
from tidegate.store.sql import SqlStore
from tidegate.store.tables import WINDOW, AggregationTables, store_tables
from tidegate.store.united import unite_hex

_CHUNK_ROWS = 10_000
_LOOK = 0.005  # seconds between two tries for a lock that SQLite does not wait for
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation])  # the column's CHECK refuses more digits than it declares


class SqliteStore(SqlStore):
    """Safe under threads and processes: a write waits until the file is free, at most the sink's timeout."""

    sql = SqliteDialect()

    def __init__(self, plan: Plan, sink: SqliteSink, clock: Clock) -> None:
        self._path = Path(sink.path)
        tables = store_tables(plan, sink.tables, None)
        super().__init__(
            plan,
            tables,
            connect_file(self._path, timeout=sink.timeout),
            clock,
            f"sink {sink.name!r} (SQLite {sink.path})",
        )

    def prepare(self) -> None:
        """Create or check each table; make each view anew (here that costs nothing and locks nobody out)."""
        if not self._path.parent.is_dir():
            raise ConfigError(
                "the directory of the SQLite file does not exist",
                field="sinks.path",
                value=str(self._path),
                hint=f"mkdir -p {self._path.parent}",
            )
        with self._transaction() as connection:
            make_or_check(connection, self._tables.metadata.sorted_tables)
            for aggregation in self._tables.aggregations.values():
                self._prepare_view(connection, aggregation)

    def _prepare_view(self, connection: Connection, tables: AggregationTables) -> None:
        if inspect(connection).has_table(tables.view) and tables.view not in inspect(connection).get_view_names():
            raise ConfigError(
                f"{tables.view} exists and is not a view",
                expected="no such table",
                hint=f"give aggregation {tables.plan.name!r} another table: sinks.tables",
            )
        execute(connection, f"DROP VIEW IF EXISTS {quote(tables.view)}")
        query = self._totals[tables.plan.name].view(self._tables, self._plan.pipeline)
        execute(connection, f"CREATE VIEW {quote(tables.view)} AS {query}")

    def windows(
        self, tp: TopicPartition, aggregation: str, *, open_after: int | None, changed_after: int = -1
    ) -> Iterator[pa.Table]:
        tables = self._tables.aggregations[aggregation]
        query = self._totals[aggregation].windows(self._of_partition(tp, aggregation, open_after), changed_after)
        plan = tables.plan
        wanted = [pa.field(name, pa.int64()) for name in WINDOW]
        wanted += [pa.field(column.name, column.type) for column in plan.group]
        wanted += [pa.field(partial.name, partial.type) for partial in plan.partials]
        wanted += [pa.field(name, pa.int64()) for name in ("records", "upto", "revision")]
        sketches = {f"{name}__sketch" for name in tables.sketches}
        with self._transaction(reads=True) as connection:
            names = ", ".join(quote(field.name) for field in wanted)
            cursor = connection.connection.cursor()
            cursor.execute(f"SELECT {names} FROM ({query})")
            while rows := cursor.fetchmany(_CHUNK_ROWS):
                columns = [
                    _to_arrow(field, list(values), sketch=field.name in sketches)
                    for field, values in zip(wanted, zip(*rows, strict=True), strict=True)
                ]
                yield pa.table(columns, schema=pa.schema(wanted))

    def _stage(self, connection: Connection, name: str, table: pa.Table) -> None:
        for column, field in zip(table.columns, table.schema, strict=True):
            if pa.types.is_floating(field.type) and pc.any(pc.invert(pc.is_finite(column))).as_py():
                raise sqlite3.DataError(f"column {field.name}: SQLite holds no NaN and no infinity")
        execute(connection, f"DELETE FROM {quote(name)}")
        places = ", ".join("?" * table.num_columns)
        columns = [_to_sqlite(column) for column in table.columns]
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(f"INSERT INTO {quote(name)} VALUES ({places})", list(zip(*columns, strict=True)))
        finally:
            cursor.close()

    def _create_staging(self, connection: Connection, statement: str) -> None:
        execute(connection, statement)

    def _instants(self, deltas: pa.Table) -> pa.Table:
        return deltas


def connect_file(path: Path, *, timeout: int) -> Engine:
    """An engine whose connections have the decimal functions, which the views need. `timeout` in ms."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": timeout / 1000, "isolation_level": None}
    )

    @event.listens_for(engine, "connect")
    def set_connection(connection: sqlite3.Connection, _record: object) -> None:
        _write_ahead(connection, timeout)
        connection.execute("PRAGMA synchronous = FULL")  # a commit that was acknowledged survives a power cut
        connection.create_function("decimal_add", 2, _decimal_add, deterministic=True)
        connection.create_aggregate("decimal_sum", 1, _DecimalSum)  # type: ignore[arg-type]  # the stub wants a protocol of ints
        connection.create_collation("decimal", _compare)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes its lock first, so that no transaction fails half-way for want of it; a reader needs none.
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reads") else "BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: sqlite3.Connection, timeout: int) -> None:
    """Put the file into WAL mode. SQLite keeps no connection waiting for that lock (two that have it shared would wait for
    each other for ever), so the first ones of a new file, opened at once, come again. `timeout` in ms.
    """
    until = time.monotonic() + timeout / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
            time.sleep(_LOOK)
        else:
            return


def _decimal_add(a: str | None, b: str | None) -> str | None:
    if a is None or b is None:
        return None
    return format(_EXACT.add(Decimal(a), Decimal(b)), "f")


class _DecimalSum:
    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, value: str | None) -> None:
        if value is not None:
            self._sum = Decimal(value) if self._sum is None else _EXACT.add(self._sum, Decimal(value))

    def finalize(self) -> str | None:
        return None if self._sum is None else format(self._sum, "f")


def _compare(a: str, b: str) -> int:
    left, right = Decimal(a), Decimal(b)
    return (left > right) - (left < right)


def _to_sqlite(column: pa.ChunkedArray) -> list[object]:
    if pa.types.is_decimal(column.type):
        return [None if value is None else format(value, "f") for value in column.to_pylist()]
    if pa.types.is_timestamp(column.type):
        return list(column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()).to_pylist())
    if pa.types.is_date(column.type):
        return [None if value is None else value.isoformat() for value in column.to_pylist()]
    return list(column.to_pylist())


def _to_arrow(field: pa.Field, values: list[object], *, sketch: bool) -> pa.Array:
    if sketch:
        return pa.array([unite_hex(value) for value in values], pa.binary())  # type: ignore[arg-type]  # pyarrow's stubs know no bytes here
    if pa.types.is_decimal(field.type):
        return pa.array([None if value is None else Decimal(str(value)) for value in values], field.type)
    if pa.types.is_date(field.type):
        return pa.array([None if value is None else date.fromisoformat(str(value)) for value in values], field.type)
    if pa.types.is_boolean(field.type):
        return pa.array([None if value is None else bool(value) for value in values], field.type)
    if pa.types.is_timestamp(field.type):
        return pa.array(values, pa.timestamp("us")).cast(field.type)
    return pa.array(values, field.type)
