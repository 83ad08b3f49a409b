"""Aggregate: accepted rows to partials per window and group; partials to merged partials, and to results.

One GROUP BY per aggregation and batch. Its key is the pane, one integer that stands for the window and the lane, so
that DuckDB hashes a number instead of two numbers and a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.arrow import leave_pandas_out
from tidegate.errors import AggregateOverflow
from tidegate.record import Lane, Stage
from tidegate.stages.batch import Rejection
from tidegate.stages.eventtime import longs
from tidegate.stages.expressions import parenthesised
from tidegate.stages.measures import MEASURES
from tidegate.stages.membership import Membership, OpenWindows
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.stages.prepared import EXPRESSION_FAILURES, Prepared, expression_error, failing_rows, without
from tidegate.stages.sql import query, quote
from tidegate.stages.types import EVENT_TIME, LANE, OFFSET
from tidegate.stages.windows import Longs, Windows

leave_pandas_out()  # before the first array, which is the next line
_LANES = pa.array([lane.value for lane in Lane])
# Beside the user's columns; in the queries they are `_pane` and `_order`.
_PANE, _ORDER = "_tidegate_pane", "_tidegate_order"


@dataclass(frozen=True, slots=True)
class Aggregated:
    """`rows`: those that count; `rejected`: those for which an expression failed. `deltas`: a table per
    aggregation.
    """

    rows: pa.Table
    deltas: dict[str, pa.Table]
    rejected: list[Rejection]


class Aggregator:
    """All the aggregations of a plan. Not for use by two threads at once."""

    def __init__(self, plan: Plan, con: duckdb.DuckDBPyConnection) -> None:
        self._groupings = [Grouping(a, con, f"aggregations[{index}]") for index, a in enumerate(plan.aggregations)]

    def apply(self, rows: pa.Table, membership: Membership) -> Aggregated:
        """A row for which an expression fails in one aggregation is taken out of all of them."""
        try:
            return Aggregated(rows, self._collect(rows, membership), [])
        except EXPRESSION_FAILURES as error:
            failed: dict[int, Rejection] = {}
            for grouping in self._groupings:
                for row, rejection in grouping.failures(rows, membership):
                    failed.setdefault(row, rejection)
            if not failed and isinstance(error, duckdb.OutOfRangeException):
                raise AggregateOverflow("a measure", str(error)) from error
            if not failed:
                raise
        kept = without(rows.num_rows, sorted(failed))
        rows, membership = rows.take(pa.array(kept)), membership.take(kept)
        return Aggregated(rows, self._collect(rows, membership), [failed[row] for row in sorted(failed)])

    def _collect(self, rows: pa.Table, membership: Membership) -> dict[str, pa.Table]:
        return {grouping.plan.name: grouping.collect(rows, membership) for grouping in self._groupings}

    def keys(self, name: str, rows: pa.Table) -> pa.Table:
        """Per row and window of it: `window_start`, `lane`, the group's columns and `_offset`; closed windows
        included.
        """
        grouping = next(grouping for grouping in self._groupings if grouping.plan.name == name)
        return grouping.keys(rows)


class Grouping:
    """One aggregation's queries."""

    def __init__(self, plan: AggregationPlan, con: duckdb.DuckDBPyConnection, at: str) -> None:
        self.plan, self._at = plan, at
        self._windows = Windows(plan.size, plan.hop)
        self._measures = [(MEASURES[m.kind], m) for m in plan.measures]
        self._ordered = any(kind.needs_order for kind, _ in self._measures)
        self._schema = partial_schema(plan)
        self._collecting = Prepared(con, self._collect_sql)
        self._evaluating = Prepared(con, self._inner_sql)

    def _inner_sql(self, rows: str) -> str:
        """The row-by-row part: each group's and measure's expression, under a name that no column has."""
        own = [f"{_PANE} AS _pane", OFFSET, *([EVENT_TIME, f"{_ORDER} AS _order"] if self._ordered else [])]
        groups = [f"{parenthesised(g.expression)} AS _g{i}" for i, g in enumerate(self.plan.group)]
        values = [f"{parenthesised(m.of)} AS _v{i}" for i, m in enumerate(self.plan.measures) if m.of is not None]
        return f"SELECT {', '.join([*own, *groups, *values])} FROM {rows}"

    def _collect_sql(self, rows: str) -> str:
        groups = [f"_g{i} AS {quote(g.name)}" for i, g in enumerate(self.plan.group)]
        partials = [
            f"{sql} AS {quote(column)}"
            for i, (kind, measure) in enumerate(self._measures)
            for column, sql in kind.collect(measure, f"_v{i}").items()
        ]
        columns = ["_pane", *groups, *partials, "count(*) AS records", f"max({OFFSET}) AS upto"]
        keys = ["_pane", *(f"_g{i}" for i in range(len(groups)))]
        return f"SELECT {', '.join(columns)} FROM ({self._inner_sql(rows)}) GROUP BY {', '.join(keys)}"

    def collect(self, rows: pa.Table, membership: Membership) -> pa.Table:
        """The partials of these rows, a row per window, group and lane. Raises duckdb.Error, AggregateOverflow."""
        if rows.num_rows == 0:
            return self._schema.empty_table()
        paned, _ = self._paned(rows, membership)
        table = self._collecting.run(paned)
        for kind, measure in self._measures:
            table = kind.finish_partial(measure, table)
        return self._unpaned(table)

    def failures(self, rows: pa.Table, membership: Membership) -> list[tuple[int, Rejection]]:
        """The rows for which an expression of this aggregation fails, in a window in which they count."""
        if rows.num_rows == 0:
            return []
        paned, origin = self._paned(rows, membership)
        field = f"{self._at} ({self.plan.name})"
        found: dict[int, Rejection] = {}
        for index, error in failing_rows(self._evaluating.run, paned):
            row = index if origin is None else int(origin[index])
            found.setdefault(row, expression_error(rows, row, error, Stage.AGGREGATE, field))
        return list(found.items())

    def keys(self, rows: pa.Table) -> pa.Table:
        paned, _ = self._paned(rows, OpenWindows(np.full(rows.num_rows, np.iinfo(np.int64).min)))
        table = self._evaluating.run(paned)
        start, lane = self._window_and_lane(table)
        columns = {f"_g{i}": g.name for i, g in enumerate(self.plan.group)}
        named = {name: table.column(column) for column, name in columns.items()}
        return pa.table({"window_start": pa.array(start), "lane": lane, **named, OFFSET: table.column(OFFSET)})

    def _paned(self, rows: pa.Table, membership: Membership) -> tuple[pa.Table, Longs | None]:
        """The rows once per window in which they count, with `_pane`; and each one's index in `rows` (None: the same)."""
        times = longs(rows.column(EVENT_TIME))
        if self._ordered:
            order = np.empty(len(times), dtype=np.int64)
            order[np.argsort(times, kind="stable")] = np.arange(len(times))
            rows = rows.append_column(_ORDER, pa.array(order))
        panes = membership.panes(self.plan.name, self._windows, times)
        if panes.rows is not None:
            rows = rows.take(pa.array(panes.rows))
        lanes = pc.index_in(rows.column(LANE), value_set=_LANES).to_numpy()
        return rows.append_column(_PANE, pa.array(panes.starts // self.plan.hop * len(_LANES) + lanes)), panes.rows

    def _window_and_lane(self, table: pa.Table) -> tuple[Longs, pa.Array]:
        panes = longs(table.column("_pane"))
        return panes // len(_LANES) * self.plan.hop, _LANES.take(pa.array(panes % len(_LANES)))

    def _unpaned(self, table: pa.Table) -> pa.Table:
        """The table with `window_start`, `window_end` and `lane` in the place of the pane."""
        start, lane = self._window_and_lane(table)
        window = [pa.array(start), pa.array(start + self.plan.size), lane]
        return pa.Table.from_arrays([*window, *table.columns[1:]], schema=self._schema)


def partial_schema(plan: AggregationPlan) -> pa.Schema:
    """The columns of `BatchResult.deltas`."""
    fields = [pa.field("window_start", pa.int64()), pa.field("window_end", pa.int64()), pa.field("lane", pa.string())]
    fields += [pa.field(group.name, group.type) for group in plan.group]
    fields += [pa.field(partial.name, partial.type) for partial in plan.partials]
    return pa.schema([*fields, pa.field("records", pa.int64()), pa.field("upto", pa.int64())])


def merge_partials(
    agg: AggregationPlan, tables: Sequence[pa.Table], con: duckdb.DuckDBPyConnection, *, ordered: bool = False
) -> pa.Table:
    """Partials of the same window and group (and lane, where the tables have it) become one, whatever their order.

    The result has the columns of `partial_schema`, in any row order, or by window and group. Raises AggregateOverflow.
    """
    has_lane = "lane" in tables[0].column_names
    sql = _merge_sql(agg, has_lane, "partials")
    if ordered:
        sql += f" ORDER BY {', '.join(['window_start', *(quote(group.name) for group in agg.group)])}"
    return _merge(agg, tables, lambda table: query(con, sql, partials=table))


class Merger:
    """`merge_partials` for those who do it with every batch, of tables without a lane: planned once (100 rows: 3.2 ms of
    processor time, now 1.5). Not for use by two threads at once.
    """

    def __init__(self, agg: AggregationPlan, con: duckdb.DuckDBPyConnection) -> None:
        self._agg = agg
        self._merging = Prepared(con, lambda rows: _merge_sql(agg, False, rows))

    def merge(self, tables: Sequence[pa.Table]) -> pa.Table:
        """As `merge_partials`."""
        return _merge(self._agg, tables, self._merging.run)


def _merge(agg: AggregationPlan, tables: Sequence[pa.Table], run: Callable[[pa.Table], pa.Table]) -> pa.Table:
    has_lane = "lane" in tables[0].column_names
    names = [name for name in partial_schema(agg).names if has_lane or name != "lane"]
    try:
        merged = run(pa.concat_tables([table.select(names) for table in tables]))
    except duckdb.OutOfRangeException as error:
        raise AggregateOverflow(f"aggregation '{agg.name}'", str(error)) from error
    for measure in agg.measures:
        merged = MEASURES[measure.kind].finish_merge(measure, merged)
    return merged


def _merge_sql(agg: AggregationPlan, has_lane: bool, rows: str) -> str:
    keys = ["window_start", "window_end", *(["lane"] if has_lane else []), *(quote(group.name) for group in agg.group)]
    partials = [
        f"{sql} AS {quote(column)}"
        for measure in agg.measures
        for column, sql in MEASURES[measure.kind].merge(measure).items()
    ]
    tail = ["CAST(sum(records) AS BIGINT) AS records", "max(upto) AS upto"]
    return f"SELECT {', '.join([*keys, *partials, *tail])} FROM {rows} GROUP BY {', '.join(keys)}"


def finalize(agg: AggregationPlan, partials: pa.Table, con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Results of merged partials, in their row order: `window_start`, `window_end`, the group's columns, the
    measures.
    """
    return finish_results(agg, query(con, finalize_sql(agg, "partials"), partials=partials))


def finish_results(agg: AggregationPlan, results: pa.Table) -> pa.Table:
    """What `finalize_sql` gave, with what is not computed in SQL."""
    for measure in agg.measures:
        results = MEASURES[measure.kind].finish_result(measure, results)
    return results


def finalize_sql(agg: AggregationPlan, partials: str) -> str:
    """For those who run it often; `finalize` is for once."""
    keys = ["window_start", "window_end", *(quote(group.name) for group in agg.group)]
    results = [f"{MEASURES[m.kind].result(m)} AS {quote(m.name)}" for m in agg.measures]
    return f"SELECT {', '.join([*keys, *results])} FROM {partials}"
