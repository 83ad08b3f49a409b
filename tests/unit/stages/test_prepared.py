"""A SELECT that is planned once: over whatever tables come, whatever went wrong before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from tidegate.stages.prepared import Prepared
from tidegate.stages.sql import connect, query


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as made:
        yield made


def values(table: pa.Table) -> list[list[object]]:
    return [column.to_pylist() for column in table.columns]


def test_every_run_reads_its_own_rows(con: duckdb.DuckDBPyConnection) -> None:
    """As many as there are, also none; other queries of the connection in between change nothing."""
    doubled = Prepared(con, lambda rows: f"SELECT a * 2 FROM {rows}")
    for given in ([1, 2], [], [None, 3], list(range(10_000))):
        wanted = [None if a is None else a * 2 for a in given]
        assert values(doubled.run(pa.table({"a": pa.array(given, pa.int64())}))) == [wanted]
        query(con, "SELECT * FROM other", other=pa.table({"b": [1]}))


def test_a_table_of_other_types_or_order_is_planned_anew(con: duckdb.DuckDBPyConnection) -> None:
    """Columns are taken by their names, whatever their places and widths in this table."""
    both = Prepared(con, lambda rows: f"SELECT a, b FROM {rows}")
    small, text = pa.array([1, 2], pa.int16()), pa.array(["x", "y"])
    for table in (
        pa.table({"a": small, "b": text}),
        pa.table({"b": text, "a": small}),
        pa.table({"a": small.cast(pa.int64()), "b": text.cast(pa.large_string())}),
        pa.table({"a": small, "b": text.dictionary_encode()}),
    ):
        assert values(both.run(table)) == [[1, 2], ["x", "y"]]


def test_a_run_that_fails_is_no_matter_to_the_next(con: duckdb.DuckDBPyConnection) -> None:
    """A value that cannot be cast, or a column that is missing, is DuckDB's own error, each time anew."""
    number = Prepared(con, lambda rows: f"SELECT CAST(s AS INTEGER) FROM {rows}")
    for _ in range(2):
        with pytest.raises(duckdb.ConversionException):
            number.run(pa.table({"s": ["1", "x"]}))
        assert values(number.run(pa.table({"s": ["7"]}))) == [[7]]
        with pytest.raises(duckdb.BinderException):
            number.run(pa.table({"t": ["1"]}))


@pytest.mark.slow
def test_nothing_is_warned_of() -> None:
    """What DuckDB has to say about this use of it does not reach a worker's log."""
    code = (
        "import pyarrow as pa; from tidegate.stages.prepared import Prepared; from tidegate.stages.sql import connect; "
        "print(Prepared(connect(), lambda rows: f'SELECT a FROM {rows}').run(pa.table({'a': [7]}))['a'].to_pylist())"
    )
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, "Arrow output" in done.stderr) == ("[7]\n", False), done.stderr
