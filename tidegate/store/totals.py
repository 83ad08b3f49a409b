"""What adds partials up: the view that people read, and the reload of one partition's windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tidegate.config.pipeline import Pipeline
from tidegate.stages.plan import MeasurePlan
from tidegate.stages.sql import quote
from tidegate.store.dialect import SqlDialect
from tidegate.store.statements import part_of, same_key
from tidegate.store.tables import WINDOW, AggregationTables, StoreTables, qualified
from tidegate.store.watermark import has_closed

_RANK = "__rank"


class Totals:
    """The SELECTs of one aggregation that group its partials."""

    def __init__(self, tables: AggregationTables, sql: SqlDialect) -> None:
        self._tables, self._sql = tables, sql
        self._keys = [quote(name) for name in tables.keys]

    def view(self, store: StoreTables, pipeline: Pipeline) -> str:
        """The result rows: window, group, measures, `records`, `upto`, `revision`, and whether the result is final.

        Final = the pipeline-wide watermark has passed the window's end (watermark.py).
        """
        window = [f"{self._sql.shown_instant('p.' + name)} AS {name}" for name in WINDOW]
        measures = [f"{self._result(measure)} AS {quote(measure.name)}" for measure in self._tables.plan.measures]
        columns = [
            *window,
            *(f"p.{quote(name)} AS {quote(name)}" for name in self._tables.group),
            *measures,
            self._tail(),
            f"coalesce({has_closed('p.window_end', store, self._sql, pipeline)}, false) AS final",
        ]
        keys = ", ".join(f"p.{key}" for key in self._keys)
        return f"SELECT {', '.join(columns)} FROM ({self._source()}) AS p GROUP BY {keys}"

    def results(self, keys: str | None, patterns: Iterable[Sequence[bool]]) -> str:
        """The results of the windows and groups in a table of this name, quoted (None: all): window, group, measures, `records`,
        `upto` as JSON text, source partition → offset, and `revision`. PostgreSQL only.

        `patterns`: which group columns are null, for each combination in the table.
        """
        measures = [f"{self._result(measure)} AS {quote(measure.name)}" for measure in self._tables.plan.measures]
        # The last of equal names stays: with two lanes, the larger offset.
        upto = (
            "jsonb_object_agg(p.topic || '-' || p.partition, p.upto ORDER BY p.upto) FILTER (WHERE p.topic IS NOT NULL)"
        )
        tail = [f"CAST(sum(p.{name}) AS BIGINT) AS {name}" for name in ("records", "revision")]
        columns = ", ".join([*(f"p.{k} AS {k}" for k in self._keys), *measures, *tail, f"CAST({upto} AS TEXT) AS upto"])
        if keys is None:
            source = self._source()
        else:
            chosen = f"(SELECT DISTINCT {', '.join(self._keys)} FROM {keys}) AS k"
            joins = [f" JOIN {chosen} ON {same_key(self._tables, pattern)}" for pattern in patterns]
            source = " UNION ALL ".join(self._source(join) for join in joins)
        return f"SELECT {columns} FROM ({source}) AS p GROUP BY {', '.join(f'p.{key}' for key in self._keys)}"

    def windows(self, where: str, changed_after: int) -> str:
        """Partials with their lanes added up, of groups that have records of later offsets than `changed_after`; sketches as
        hexadecimal text with commas between them.

        Columns: window, group, the plan's partial columns, `records`, `upto`, `revision`.
        """
        partials = [
            f"{self._partial(measure, part)} AS {quote(f'{measure.name}__{part}')}"
            for measure in self._tables.plan.measures
            for part in map(part_of, measure.partials)
        ]
        columns = ", ".join([*(f"p.{key} AS {key}" for key in self._keys), *partials, self._tail()])
        keys = ", ".join(f"p.{key}" for key in self._keys)
        source = (
            f"SELECT {', '.join(['t.*', *self._ranks()])} FROM {qualified(self._tables.partials)} AS t WHERE {where}"
        )
        return f"SELECT {columns} FROM ({source}) AS p GROUP BY {keys} HAVING max(p.upto) > {changed_after}"

    def _tail(self) -> str:
        sums = [f"CAST(sum(p.{name}) AS BIGINT) AS {name}" for name in ("records", "revision")]
        return f"{sums[0]}, max(p.upto) AS upto, {sums[1]}"

    def _source(self, join: str = "") -> str:
        """The partials; beside them, with approxDistinct, the estimates as rows with no `records`. `join`: SQL that chooses
        among the rows `t` of either.

        A join of the two would have to treat null groups as equal, which no hash join does.
        """
        names = [*self._tables.keys, "topic", "partition", "records", "upto", "revision"]
        names += [partial.name for partial in self._tables.plan.partials if part_of(partial) != "sketch"]
        estimates, sketched = self._tables.estimates, self._tables.sketches
        columns = [f"t.{quote(name)}" for name in names]
        nothing = [f"NULL AS {quote(name)}" for name in sketched]
        source = f"SELECT {', '.join([*columns, *nothing, *self._ranks()])} FROM {qualified(self._tables.partials)} AS t{join}"
        if estimates is None:
            return source
        none = [f"t.{quote(name)}" if name in self._tables.keys else "NULL" for name in names]
        shown = [f"t.{quote(name)}" for name in sketched]
        ranks = ["NULL" for _ in self._ranks()]
        return f"{source} UNION ALL SELECT {', '.join([*none, *shown, *ranks])} FROM {qualified(estimates)} AS t{join}"

    def _ranks(self) -> Iterator[str]:
        keys = [f"t.{key}" for key in self._keys]
        for measure in self._tables.plan.measures:
            if measure.kind in ("first", "last"):
                rank = self._sql.rank(self._order(measure, "t"), keys, newest=measure.kind == "last")
                if rank is not None:
                    yield f"{rank} AS {quote(measure.name + _RANK)}"

    def _order(self, measure: MeasurePlan, alias: str) -> list[str]:
        """Partitions can tie in time and offset: then the value decides, as it does in the stages."""
        return [f"{alias}.{quote(f'{measure.name}__{part}')}" for part in ("at", "offset", measure.kind)]

    def _result(self, measure: MeasurePlan) -> str:
        if measure.kind == "approxDistinct":
            return f"max(p.{quote(measure.name)})"
        if measure.kind == "avg":
            return self._sql.ratio(self._partial(measure, "sum"), self._partial(measure, "n"))
        part = {"count": "n"}.get(measure.kind, measure.kind)
        return self._sql.cast(self._partial(measure, part), measure.result_type)

    def _partial(self, measure: MeasurePlan, part: str) -> str:
        """The aggregate over a group's rows that gives one partial column."""
        column = f"p.{quote(f'{measure.name}__{part}')}"
        type_ = next(partial.type for partial in measure.partials if part_of(partial) == part)
        if part in ("n", "sum"):
            return self._sql.cast(self._sql.total(column, type_), type_)
        if part == "min":
            return self._sql.smallest(column, type_)
        if part == "max":
            return self._sql.largest(column, type_)
        if part == "sketch":
            return self._sql.joined_hex(column)
        rank = f"p.{quote(measure.name + _RANK)}"
        return self._sql.chosen(column, self._order(measure, "p"), rank, newest=measure.kind == "last")
