"""Finding the rows that a database refuses: by bisection, because its error names a value but no row."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import psycopg
import sqlalchemy.exc
from sqlalchemy import Connection

from tidegate.errors import SinkRecordError
from tidegate.record import TopicPartition
from tidegate.stages.plan import AggregationPlan
from tidegate.store.failures import Failure, driver_error, failure_of

DRIVER_ERRORS = (sqlalchemy.exc.DBAPIError, psycopg.Error, sqlite3.Error)


def refused_rows(count: int, accepts: Callable[[int, int], bool]) -> tuple[int, ...]:
    """The indexes of the refused rows among `count`. `accepts(start, stop)` tries a run of rows and leaves no trace.

    Tries about 2·g·log2(count) runs for g refused rows; each row that is named was tried alone.
    """
    guilty: list[int] = []
    runs = [(0, count)] if count else []
    while runs:
        start, stop = runs.pop()
        if accepts(start, stop):
            continue
        if stop - start == 1:
            guilty.append(start)
            continue
        middle = (start + stop) // 2
        runs += [(middle, stop), (start, middle)]
    return tuple(sorted(guilty))


def undone(connection: Connection, write: Callable[[int, int], None]) -> Callable[[int, int], bool]:
    """`accepts` for `refused_rows`: what `write` does to a run of rows is undone again. An outage is raised as it is."""

    def accepts(start: int, stop: int) -> bool:
        savepoint = connection.begin_nested()
        try:
            write(start, stop)
        except DRIVER_ERRORS as error:
            if failure_of(error) is not Failure.REFUSED:
                raise
            return False
        finally:
            savepoint.rollback()
        return True

    return accepts


def refusal(
    plan: AggregationPlan, tp: TopicPartition, guilty: tuple[int, ...], count: int, cause: BaseException
) -> SinkRecordError:
    """The error that names them. `cause`: what the database said of the whole batch."""
    shown = str(driver_error(cause)).splitlines()[0] if str(driver_error(cause)) else type(cause).__name__
    return SinkRecordError(
        f"aggregation {plan.name!r}: the database refuses {len(guilty)} of {count} rows: {shown}",
        aggregation=plan.name,
        tp=tp,
        rows=guilty,
    )
