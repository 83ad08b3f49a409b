"""DuckDB in process on Arrow tables: one thread, no files, no network, no extensions, settings locked, UTC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import duckdb
import pyarrow as pa

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,  # the worker runs one partition's batch per thread; a pool in each would only take turns
    "enable_external_access": False,
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_community_extensions": False,
}
_SETTINGS = (
    "SET TimeZone = 'UTC'",
    "SET enable_progress_bar = false",
    "SET python_enable_replacements = false",  # a table is what was registered, never a Python variable of that name
    "SET lock_configuration = true",
)


def connect() -> duckdb.DuckDBPyConnection:
    """A database of its own, in memory. Not for use by two threads at once."""
    con = duckdb.connect(":memory:", config=_CONFIG)
    for setting in _SETTINGS:
        con.execute(setting)
    return con


def quote(name: str) -> str:
    """A column's or table's name in SQL."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def literal(text: str) -> str:
    """A string in SQL."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def query(con: duckdb.DuckDBPyConnection, sql: str, **tables: pa.Table | pa.RecordBatch) -> pa.Table:
    """The result of one SELECT over Arrow tables, which go by the names they are given here.

    Raises duckdb.Error as DuckDB raises it; the tables are unregistered in any case.
    """
    with _registered(con, tables):
        # `con.sql` and not `con.execute`: an unfinished execute blocks the connection, and its Arrow result is a copy.
        return con.sql(sql).to_arrow_table()


@contextmanager
def _registered(con: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table | pa.RecordBatch]) -> Iterator[None]:
    try:
        for name, table in tables.items():
            con.register(name, table)
        yield
    finally:
        for name in tables:
            con.unregister(name)
