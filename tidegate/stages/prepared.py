"""A SELECT that is planned once and run for every batch; and how a record that makes it fail is found."""

from __future__ import annotations

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

# Failures of the expression, not of the machine: a cast, an overflow, a bad argument. Out of memory is none of them.
EXPRESSION_FAILURES = (duckdb.DataError, duckdb.ProgrammingError)


class Prepared:
    """One SELECT over Arrow tables of one schema; `sql` is given the name that the table goes by.

    Planning costs about as much as running over a few thousand rows (0.7 of 2.8 ms measured), so it is done at the
    first run. Not for use by two threads at once.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, sql: Callable[[str], str]) -> None:
        self._con, self._sql = con, sql
        self._inlet = _Inlet()
        self._relation: duckdb.DuckDBPyRelation | None = None

    def run(self, rows: pa.Table) -> pa.Table:
        """The result over these rows. Raises duckdb.Error."""
        self._inlet.rows = rows
        try:
            if self._relation is None:
                name = f"prepared_{next(_names)}"
                self._con.register(name, self._inlet)
                self._relation = self._con.sql(self._sql(quote(name)))
            return self._relation.to_arrow_table()
        finally:
            self._inlet.rows = None


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
