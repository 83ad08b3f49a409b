"""Windows that leave the store for good (`eventTime.stateTimeout`), and what keeps them from coming back.

One row per pipeline says up to which end windows have gone. It is moved in the transaction that deletes them, by whoever has
claimed all partitions, with their rows locked: so nobody else writes meanwhile, and a writer learns of it with its next claim.
A backfill, which claims nothing, locks the row. What comes for such a window all the same, from a partition that was idle and
far behind, say, is not added, but counted in the late table as `expired`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.sql import literal
from tidegate.stages.windows import NEVER
from tidegate.store.base import TimedOut
from tidegate.store.dialect import SqlDialect
from tidegate.store.late import LateCounts, LateWindow, late_window, total
from tidegate.store.raw import execute, fetch
from tidegate.store.statements import Statements
from tidegate.store.tables import WINDOW, AggregationTables, StoreTables, qualified
from tidegate.store.watermark import EVERYTHING, watermark_of


class TimeoutRows:
    """The row of one pipeline, and the statements that go with it."""

    def __init__(self, tables: StoreTables, sql: SqlDialect, pipeline: str) -> None:
        self._tables, self._sql, self._pipeline = tables, sql, pipeline
        self._row = qualified(tables.timeouts)

    def upto(self, connection: Connection) -> int:
        """Up to which end windows have gone, ms; NEVER: none has."""
        rows = fetch(connection, f"SELECT upto FROM {self._row} WHERE pipeline = {literal(self._pipeline)}")
        return int(rows[0][0]) if rows else NEVER

    def locked_upto(self, connection: Connection) -> int:
        """The same, and it stays so until the end of the transaction."""
        execute(
            connection,
            f"INSERT INTO {self._row} (pipeline, upto) VALUES ({literal(self._pipeline)}, {NEVER}) "
            "ON CONFLICT (pipeline) DO UPDATE SET pipeline = excluded.pipeline",
        )
        return self.upto(connection)

    def move(self, connection: Connection, upto: int) -> TimedOut:
        """Delete all windows that end by `upto`, and give up what they miss."""
        self.locked_upto(connection)
        mine = f"pipeline = {literal(self._pipeline)}"
        execute(connection, f"UPDATE {self._row} SET upto = {upto} WHERE {mine}")
        windows = {name: self._delete(connection, of, upto) for name, of in self._tables.aggregations.items()}
        late = qualified(self._tables.late_windows)
        gone = f"{mine} AND missing > 0 AND window_end <= {self._sql.instant(str(upto))}"
        missing = int(fetch(connection, f"SELECT coalesce(sum(missing), 0) FROM {late} WHERE {gone}")[0][0])
        moved = "expired = expired + missing, missing = 0, refused = 0"
        execute(connection, f"UPDATE {late} SET {moved} WHERE {gone}")
        return TimedOut(upto, {name: count for name, count in windows.items() if count}, missing)

    def _delete(self, connection: Connection, tables: AggregationTables, upto: int) -> int:
        """By the window's start, with which the unique index begins. How many windows there were."""
        bounds = zip(WINDOW, (upto - tables.plan.size, upto), strict=True)
        gone = " AND ".join(f"{name} <= {self._sql.instant(str(bound))}" for name, bound in bounds)
        partials = qualified(tables.partials)
        count = fetch(connection, f"SELECT count(DISTINCT window_start) FROM {partials} WHERE {gone}")[0][0]
        for table in (tables.partials, tables.estimates):
            if table is not None:
                execute(connection, f"DELETE FROM {qualified(table)} WHERE {gone}")
        return int(count)


def timed_out_upto(states: Iterable[PartitionState], delay: int, timeout: int) -> int | None:
    """Windows that end by then (ms) are to go: `timeout` before the pipeline-wide watermark. None: it is not known.

    While all partitions are idle it is not: their windows have closed, which a later record can correct, but what is deleted
    is gone. The next record says which time it is.
    """
    watermark = watermark_of(states, delay)
    return None if watermark is None or watermark == EVERYTHING else watermark - timeout


def surviving(deltas: pa.Table, upto: int) -> pa.Table:
    """Those of windows that have not gone."""
    if upto == NEVER:
        return deltas
    return deltas.filter(pc.greater(deltas["window_end"], pa.scalar(upto, pa.int64())))


Changes = dict[LateWindow, LateCounts]


def expired_of(deltas: Iterable[tuple[Statements, pa.Table]], upto: int) -> dict[TopicPartition, Changes]:
    """What the others come to in the late table. `deltas`: of each aggregation, with their source partitions (deltas.py)."""
    found: dict[TopicPartition, Changes] = {}
    for statements, table in deltas:
        name = statements.tables.plan.name
        gone = table.filter(pc.less_equal(table["window_end"], pa.scalar(upto, pa.int64())))
        for row in gone.select(["topic", "partition", *WINDOW, "records"]).to_pylist():
            window = late_window(name, row["window_start"], row["window_end"])
            counts = found.setdefault(TopicPartition(row["topic"], row["partition"]), {})
            counts[window] = total([counts.get(window, LateCounts()), LateCounts(expired=row["records"])])
    return found


def given_up(changes: Mapping[LateWindow, LateCounts], upto: int) -> Changes:
    """A batch's late counts, where what windows that have gone miss is expired at once."""
    return {
        window: counts if window.end > upto else LateCounts(expired=counts.missing)
        for window, counts in changes.items()
    }


def added_up(one: Changes, other: Changes) -> Changes:
    """Both."""
    return {window: total(each[window] for each in (one, other) if window in each) for window in {*one, *other}}
