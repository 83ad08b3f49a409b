"""A SELECT that is planned once and run for every batch; and how a record that makes it fail is found."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegate.record import Stage
from tidegate.stages.batch import Reason, Rejection
from tidegate.stages.sql import quote
from tidegate.stages.types import OFFSET

_names = count()
# A prepared statement has no other way to Arrow than this "extra copy"; 0.2 ms less than without one, whatever the size.
warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning)

# Failures of the expression, not of the machine: a cast, an overflow, a bad argument. Out of memory is none of them.
EXPRESSION_FAILURES = (duckdb.DataError, duckdb.ProgrammingError)


class Prepared:
    """One SELECT over Arrow tables; `sql` is given the name that the table goes by.

    Reading SQL and planning it take twice as long as running over a hundred rows (0.5 of 0.7 ms measured), so it is done at
    the first run, and again when a table has other types than the one before. Not for use by two threads at once.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, sql: Callable[[str], str]) -> None:
        self._con, self._sql = con, sql
        self._name = f"prepared_{next(_names)}"
        self._inlet = _Inlet()
        self._schema: pa.Schema | None = None

    def run(self, rows: pa.Table) -> pa.Table:
        """The result over these rows. Raises duckdb.Error."""
        self._inlet.rows = rows
        try:
            if rows.schema != self._schema:
                self._prepare(rows.schema)
            return self._con.execute(f"EXECUTE {self._name}").to_arrow_table()
        finally:
            self._inlet.rows = None

    def _prepare(self, schema: pa.Schema) -> None:
        """The plan knows the columns by their places and types: it must not be run over others."""
        self._schema = None
        self._con.register(f"{self._name}_rows", self._inlet)
        self._con.execute(f"PREPARE {self._name} AS {self._sql(quote(f'{self._name}_rows'))}")
        self._schema = schema


class _Inlet:
    """What DuckDB reads from: whichever table is in it at the moment."""

    rows: pa.Table | None = None

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        assert self.rows is not None, "a prepared query reads only while it runs"
        return self.rows.__arrow_c_stream__(requested_schema)


def failing_rows(run: Callable[[pa.Table], object], rows: pa.Table) -> Iterator[tuple[int, duckdb.Error]]:
    """The rows (by index, ascending) for which `run` fails by themselves, and how: by bisection."""
    parts = [(0, rows.num_rows)]
    while parts:
        start, length = parts.pop()
        try:
            run(rows.slice(start, length))
        except EXPRESSION_FAILURES as error:
            if length == 1:
                yield start, error
            else:
                half = length // 2
                parts += [(start + half, length - half), (start, half)]


def expression_error(rows: pa.Table, row: int, error: duckdb.Error, stage: Stage, field: str) -> Rejection:
    """The rejection of one record for which an expression of the pipeline file (`field`: where it stands) fails."""
    message = str(error).splitlines()[0]
    return Rejection(rows.column(OFFSET)[row].as_py(), stage, (Reason("ExpressionError", message, field=field),))


def without(length: int, rows: list[int]) -> NDArray[np.int64]:
    """The indices below `length` but for those in `rows`."""
    return np.delete(np.arange(length, dtype=np.int64), rows)
