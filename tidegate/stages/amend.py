"""Late records into the windows that miss them: the way of a record from its bytes to partials, in the lane `late`.

That they are valid, first with their key, and late for which windows was decided when they were read, and is not asked again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tidegate.arrow import where
from tidegate.record import Lane, Stage
from tidegate.stages.aggregate import Aggregator
from tidegate.stages.batch import MissedWindow, RawBatch, Reason, Rejection
from tidegate.stages.decode import Decoder
from tidegate.stages.eventtime import EventTimes, longs
from tidegate.stages.handle import HandlerChain
from tidegate.stages.membership import MissedWindows
from tidegate.stages.plan import Plan
from tidegate.stages.sql import connect, query, quote
from tidegate.stages.types import LANE, OFFSET

Missed = Mapping[int, tuple[MissedWindow, ...]]
"""Offset → the windows that miss the record."""


@dataclass(frozen=True, slots=True)
class Amended:
    """`deltas`: per aggregation, as in `BatchResult`. `rejected`: records that a stage or the database refuses. `rows`: the
    others, typed."""

    deltas: dict[str, pa.Table]
    rejected: list[Rejection]
    rows: pa.Table
    missed: Missed = field(repr=False)

    @property
    def offsets(self) -> set[int]:
        """The records that count; those that are neither here nor rejected were left out by a handler."""
        return set(longs(self.rows.column(OFFSET)).tolist())


class Amender:
    """The stages of one pipeline for late records. Used by one thread at a time. Raises ConfigError as StagePipeline."""

    def __init__(self, plan: Plan) -> None:
        self._con = connect()
        self._decoder = Decoder(plan.pipeline)
        self._event_times = EventTimes(plan)
        self._handlers = HandlerChain(plan.pipeline, plan.decoded)
        self._aggregator = Aggregator(plan, self._con)

    def run(self, raw: RawBatch, missed: Missed, refused: Mapping[int, Reason] | None = None) -> Amended:
        """1. decode  2. event time  3. handle  4. aggregate, in exactly the windows that miss each record.

        `refused`: what the database has refused of the same records, by offset; they are left out. Raises DependencyError
        (a handler's outage), AggregateOverflow.
        """
        refused = refused or {}
        decoded = self._decoder.decode(raw.records)
        timed = self._event_times.stamp(_without(decoded.rows, refused))
        handled = self._handlers.apply(timed.rows, raw.tp)
        rows = handled.rows
        late = pa.repeat(pa.scalar(Lane.LATE.value), rows.num_rows)
        rows = rows.set_column(rows.schema.get_field_index(LANE), LANE, late)
        windows = MissedWindows([missed[offset] for offset in longs(rows.column(OFFSET)).tolist()])
        aggregated = self._aggregator.apply(rows, windows)
        rejected = [*decoded.rejected, *timed.rejected, *handled.rejected, *aggregated.rejected]
        rejected += [Rejection(offset, Stage.SINK, (reason,)) for offset, reason in refused.items()]
        return Amended(aggregated.deltas, sorted(rejected, key=lambda one: one.offset), aggregated.rows, missed)

    def offsets_behind(self, amended: Amended, aggregation: str, rows: Collection[int]) -> list[int]:
        """The offsets of the records behind these rows (by index) of `amended.deltas[aggregation]`."""
        wanted = amended.deltas[aggregation].take(pa.array(rows, pa.int64()))
        keys = self._aggregator.keys(aggregation, amended.rows)
        counted = [
            any(m.aggregation == aggregation and m.start == start for m in amended.missed[offset])
            for offset, start in zip(keys[OFFSET].to_pylist(), keys["window_start"].to_pylist(), strict=True)
        ]
        keys = keys.filter(pa.array(counted, pa.bool_()))
        same = " AND ".join(f"k.{quote(n)} IS NOT DISTINCT FROM w.{quote(n)}" for n in keys.column_names if n != OFFSET)
        sql = f"SELECT DISTINCT {OFFSET} FROM keys k SEMI JOIN wanted w ON {same} ORDER BY 1"
        offsets: list[int] = query(self._con, sql, keys=keys, wanted=wanted).column(OFFSET).to_pylist()
        return offsets

    def close(self) -> None:
        self._handlers.close()
        self._con.close()


def _without(rows: pa.Table, offsets: Collection[int]) -> pa.Table:
    if not offsets:
        return rows
    return where(rows, ~np.isin(longs(rows.column(OFFSET)), list(offsets)))
