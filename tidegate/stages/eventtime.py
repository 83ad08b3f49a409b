"""Event time: who has one, how far the partition has come, who is late. Decided by the log alone.

`highWater(p, o)` = largest event time among valid live records of partition `p` with offset < `o`; the watermark is
that less `delay`; a record is late for a window whose end ≤ watermark − `allowedLateness`. Records on their second way
(any lane but live) are never late and move nothing; but when a window's end ≤ watermark − `allowedLateness` −
`retention` its totals are forgotten, and a record that belongs in it is rejected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidegate.arrow import where
from tidegate.config.stages import EventTime
from tidegate.record import Lane, Stage
from tidegate.stages.batch import LATE_WINDOWS_SCHEMA, LateRecord, MissedWindow, Reason, Rejection
from tidegate.stages.plan import Plan
from tidegate.stages.types import EVENT_TIME, LANE, OFFSET, TIMESTAMP
from tidegate.stages.windows import NEVER, Longs, Windows

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (naive, always UTC)


@dataclass(frozen=True, slots=True)
class Timed:
    """Rows with `_event_time` (int64 ms; null throughout when the pipeline has no event time)."""

    rows: pa.Table
    rejected: list[Rejection]


@dataclass(frozen=True, slots=True)
class Judged:
    """`rows` that are not late for everything. `late`: those that are; `partly`: those of `rows` that are
    late for some windows. `rejected`: replays of records whose windows are forgotten.

    `offsets` and `bar` (watermark − allowedLateness, ms, NEVER where nothing is late) are of `rows`, in their order.
    """

    rows: pa.Table
    offsets: Longs
    bar: Longs
    late: list[LateRecord]
    partly: list[LateRecord]
    high_water: int | None
    rejected: list[Rejection] = field(default_factory=list)

    def bar_of(self, rows: pa.Table) -> Longs:
        """The bar of each of these rows, which are some of `rows`."""
        return self.bar[np.searchsorted(self.offsets, longs(rows.column(OFFSET)))]

    def late_among(self, accepted: pa.Table) -> list[LateRecord]:
        """The late records, and those of the accepted that missed some windows; in offset order."""
        if not self.partly:
            return self.late
        counted = set(longs(accepted.column(OFFSET)).tolist())
        partly = [record for record in self.partly if record.offset in counted]
        return sorted([*self.late, *partly], key=lambda record: record.offset)


class EventTimes:
    """The two acts of event time: `stamp` before dedupe, `judge` after it."""

    def __init__(self, plan: Plan) -> None:
        self._config: EventTime | None = plan.pipeline.event_time
        self._windows = {a.name: Windows(a.size, a.hop) for a in plan.aggregations}

    def stamp(self, rows: pa.Table) -> Timed:
        """Read the event times. Records without one, or with one too far in the future, are rejected: they are
        invalid.
        """
        if self._config is None:
            return Timed(rows.append_column(EVENT_TIME, pa.nulls(rows.num_rows, pa.int64())), [])
        column = rows.column(self._config.column)
        if column.type.unit != "us":
            column = column.cast(pa.timestamp("us"))
        times = longs(column.cast(pa.int64())) // 1000  # floored: half a millisecond before 1970 is the one before it
        missing = np.asarray(column.is_null()) if column.null_count else np.zeros(len(times), dtype=np.bool_)
        ahead = np.zeros(len(times), dtype=np.bool_)
        if self._config.max_future_skew is not None:
            ahead = ~missing & (times - self._config.max_future_skew > longs(rows.column(TIMESTAMP)))
        stamped = rows.append_column(EVENT_TIME, pa.array(times))
        invalid = missing | ahead
        if not invalid.any():
            return Timed(stamped, [])
        rejected = [self._reject(stamped, int(row), is_missing=bool(missing[row])) for row in np.flatnonzero(invalid)]
        return Timed(where(stamped, ~invalid), rejected)

    def _reject(self, rows: pa.Table, row: int, *, is_missing: bool) -> Rejection:
        assert self._config is not None
        column = self._config.column
        if is_missing:
            reason = Reason("MissingEventTime", f"the event-time column {column} is null", field=column, found="null")
        else:
            ahead = rows.column(EVENT_TIME)[row].as_py() - rows.column(TIMESTAMP)[row].as_py()
            reason = Reason(
                "FutureEventTime",
                f"the event time is {ahead} ms ahead of the record's Kafka timestamp; "
                f"maxFutureSkew allows {self._config.max_future_skew} ms",
                field=column,
                found=str(rows.column(column)[row].as_py()),
            )
        return Rejection(rows.column(OFFSET)[row].as_py(), Stage.EVENT_TIME, (reason,))

    def judge(self, rows: pa.Table, high_water: int | None) -> Judged:
        """Decide who is late. `rows`: the valid ones in offset order; `high_water`: as it stood before them, ms."""
        offsets = longs(rows.column(OFFSET))
        if self._config is None:
            return Judged(rows, offsets, np.full(len(offsets), NEVER), [], [], high_water)
        times, live = longs(rows.column(EVENT_TIME)), is_live(rows)
        marks, high_water = running_max(times, live, high_water)
        lag = self._config.delay + self._config.allowed_lateness
        bar = np.where(live & (marks != NEVER), marks - lag, NEVER)
        some, every = self._lateness(times, bar)
        if not some.any():
            return self._without_expired(Judged(rows, offsets, bar, [], [], high_water), marks - lag, live)
        watermarks = marks - self._config.delay
        hit = [
            LateRecord(
                int(offsets[row]),
                int(times[row]),
                int(watermarks[row]),
                self._missed(int(times[row]), int(bar[row])),
                partial=not every[row],
            )
            for row in np.flatnonzero(some)
        ]
        partly = [record for record in hit if record.partial]
        late = [record for record in hit if not record.partial]
        keep = ~every
        kept = Judged(where(rows, keep) if late else rows, offsets[keep], bar[keep], late, partly, high_water)
        return self._without_expired(kept, (marks - lag)[keep], live[keep])

    def _without_expired(self, judged: Judged, closed: Longs, live: NDArray[np.bool_]) -> Judged:
        """Reject replays of records whose windows are forgotten. `closed`: watermark − allowedLateness per row, ms."""
        assert self._config is not None
        replayed = np.flatnonzero(~live & (closed > NEVER // 2))
        if not len(replayed):
            return judged
        times, expiry = longs(judged.rows.column(EVENT_TIME)), closed - self._config.retention
        gone = {int(row): self._missed(int(times[row]), int(expiry[row])) for row in replayed}
        rejected = [
            _window_expired(int(judged.offsets[row]), self._config.column, missed[0], int(expiry[row]))
            for row, missed in gone.items()
            if missed
        ]
        if not rejected:
            return judged
        keep = np.ones(len(live), dtype=np.bool_)
        keep[[row for row, missed in gone.items() if missed]] = False
        rows = where(judged.rows, keep)
        return replace(judged, rows=rows, offsets=judged.offsets[keep], bar=judged.bar[keep], rejected=rejected)

    def _lateness(self, times: Longs, bar: Longs) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Who is late for some window of some aggregation, and who for all of all. Without aggregations: nobody."""
        some = np.zeros(len(times), dtype=np.bool_)
        every = np.full(len(times), bool(self._windows))
        for windows in self._windows.values():
            some |= windows.misses_some(times, bar)
            every &= windows.misses_all(times, bar)
        return some, every

    def _missed(self, time: int, bar: int) -> tuple[MissedWindow, ...]:
        return tuple(
            MissedWindow(name, start, start + windows.size)
            for name, windows in self._windows.items()
            for start in windows.missed(time, bar)
        )


def _window_expired(offset: int, column: str, window: MissedWindow, expiry: int) -> Rejection:
    problem = (
        f"the window {_shown(window.start)} to {_shown(window.end)} of {window.aggregation} is forgotten: totals of "
        f"windows that ended by {_shown(expiry)} are no longer kept (eventTime.retention). To count the record, start "
        "a pipeline with a longer retention and a new pipelineId, which reads the log anew"
    )
    return Rejection(offset, Stage.EVENT_TIME, (Reason("WindowExpired", problem, field=column),))


def _shown(milliseconds: int) -> str:
    """As in results: 2013-01-01T05:00:00.000Z; a number where no calendar reaches."""
    try:
        return (_EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds") + "Z"
    except OverflowError:
        return f"{milliseconds} ms"


def longs(column: pa.ChunkedArray) -> Longs:
    """A column of int64 as numpy; nulls become 0."""
    if column.null_count:
        column = pc.fill_null(column, 0)
    values: Longs = column.to_numpy()
    return values


def is_live(rows: pa.Table) -> NDArray[np.bool_]:
    """Which rows are on their first way."""
    live: NDArray[np.bool_] = pc.equal(rows.column(LANE), Lane.LIVE.value).to_numpy()
    return live


def running_max(times: Longs, counts: NDArray[np.bool_], before: int | None) -> tuple[Longs, int | None]:
    """For each record the largest time among the counting ones before it (NEVER: none), and the largest after them
    all.
    """
    marks = np.empty(len(times) + 1, dtype=np.int64)
    marks[0] = NEVER if before is None else before
    marks[1:] = np.where(counts, times, NEVER)
    np.maximum.accumulate(marks, out=marks)
    last = int(marks[-1])
    return marks[:-1], None if last == NEVER else last


def count_missing(late: Sequence[LateRecord]) -> pa.Table | None:
    """How many records each window misses, as LATE_WINDOWS_SCHEMA; None when none does."""
    counted = Counter((missed.aggregation, missed.start, missed.end) for record in late for missed in record.missed)
    if not counted:
        return None
    rows = [(*window, missing) for window, missing in sorted(counted.items())]
    return pa.Table.from_arrays(
        [
            pa.array(values, kind)
            for values, kind in zip(zip(*rows, strict=True), LATE_WINDOWS_SCHEMA.types, strict=True)
        ],
        schema=LATE_WINDOWS_SCHEMA,
    )
