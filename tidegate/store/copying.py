"""Arrow tables out of and into PostgreSQL by COPY (row by row they would be a Python object per value)."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import Any, Final, cast

import psycopg
import pyarrow as pa
from sqlalchemy import Connection

from tidegate.stages.sql import quote
from tidegate.store.binary import HEADER, TRAILER, has_binary, to_binary
from tidegate.store.csv import from_csv, to_csv
from tidegate.store.dialect import PostgresDialect
from tidegate.store.tables import WINDOW
from tidegate.store.united import unite_hex

_CHUNK_ROWS: Final = 50_000  # ~10 MB of CSV at a time
_SENT_ROWS: Final = 16_384  # ~3 MB at a time


def copy_out(
    connection: Connection, query: str, wanted: pa.Schema, sketches: Collection[str] = ()
) -> Iterator[pa.Table]:
    """The rows of a query, in chunks of at most 50 000. `wanted`: its columns; a window's bounds become ms. `sketches`: columns
    that come as hexadecimal text, several with commas between them, and are united."""
    columns = ", ".join(_as_csv(field, sketches) for field in wanted)
    statement = f"COPY (SELECT {columns} FROM ({query}) AS w) TO STDOUT (FORMAT csv)"
    with _cursor(connection) as cursor, cursor.copy(statement.encode()) as copy:
        rows: list[bytes] = []
        for row in copy:
            rows.append(bytes(row))
            if len(rows) == _CHUNK_ROWS:
                yield _from_csv(rows, wanted, sketches)
                rows = []
        if rows:
            yield _from_csv(rows, wanted, sketches)


def copy_in(connection: Connection, target: str, table: pa.Table) -> None:
    """Rows into a table. `target`: its name as SQL."""
    columns = ", ".join(map(quote, table.column_names))
    form, parts = as_copied(table)
    statement = f"COPY {target} ({columns}) FROM STDIN (FORMAT {form})"
    with _cursor(connection) as cursor, cursor.copy(statement.encode()) as copy:
        for part in parts:
            copy.write(memoryview(part))


def as_copied(table: pa.Table) -> tuple[str, Iterator[bytes | pa.Buffer]]:
    """The name of COPY's format, and the rows in it, part by part: the server takes one while the next is made."""
    if not has_binary(table.schema):
        return "csv", (to_csv(table.slice(start, _SENT_ROWS)) for start in range(0, table.num_rows, _SENT_ROWS))
    rows = map(to_binary, table.to_batches(_SENT_ROWS))
    return "binary", itertools.chain([HEADER], rows, [TRAILER])


def as_instants(table: pa.Table) -> pa.Table:
    """A window's bounds (ms) in the form in which they are staged."""
    for name in WINDOW:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, table.column(index).cast(pa.timestamp("ms", "UTC")))
    return table


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    return cast("psycopg.Cursor[Any]", connection.connection.cursor())


def _as_csv(field: pa.Field, sketches: Collection[str]) -> str:
    """The column as text that Arrow's CSV reader takes for its type: instants as integers, bytes as hexadecimals."""
    column = quote(field.name)
    if field.name in WINDOW:
        return PostgresDialect().milliseconds(column)
    if pa.types.is_timestamp(field.type):
        return f"CAST(extract(epoch FROM {column}) * 1000000 AS BIGINT)"
    if pa.types.is_binary(field.type) and field.name not in sketches:
        return f"encode({column}, 'hex')"
    return column


def _from_csv(rows: list[bytes], wanted: pa.Schema, sketches: Collection[str]) -> pa.Table:
    table = from_csv(rows, pa.schema([(field.name, _csv_type(field.type)) for field in wanted]))
    for index, field in enumerate(wanted):
        column = table.column(index)
        if pa.types.is_binary(field.type):
            read = unite_hex if field.name in sketches else bytes.fromhex
            column = pa.array([None if text is None else read(text) for text in column.to_pylist()], pa.binary())
        elif pa.types.is_timestamp(field.type):
            column = column.cast(pa.timestamp("us")).cast(field.type)
        table = table.set_column(index, field, column)
    return table


def _csv_type(wanted: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(wanted):
        return pa.int64()
    return pa.string() if pa.types.is_binary(wanted) else wanted
