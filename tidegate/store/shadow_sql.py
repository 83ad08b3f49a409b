"""The SQL of a shadow: which windows differ from the live ones, whether those have changed since, and putting it in their place.

PostgreSQL only. The shadow has the live tables once more in a schema of its own, and beside them:

tidegate_shadow           one row: which windows it is of, and of which pipeline file
tidegate_shadow_windows   per window: what stood in the live tables when it was begun, and what became of the comparison
{table}_diff              one row per result that differs: the key, each measure live and recomputed
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from tidegate.record import Lane
from tidegate.stages.plan import MeasurePlan
from tidegate.stages.sql import literal, quote
from tidegate.store.dialect import SqlDialect
from tidegate.store.late import LateCounts
from tidegate.store.tables import WINDOW, AggregationTables, StoreTables, qualified

_NEAR = "1e-9"  # sums of doubles differ in their last bits with the order of their records
_WINDOWS = ", ".join(WINDOW)
_NONE_LATE = literal("/".join(map(str, LateCounts())))


@dataclass(frozen=True, slots=True)
class ShadowSql:
    """Of one pipeline. `schema`: the shadow's, quoted. `live` and `shadow`: the same tables in either schema."""

    pipeline: str
    schema: str
    live: StoreTables
    shadow: StoreTables
    sql: SqlDialect
    live_schema: str

    @property
    def meta(self) -> str:
        return f"{self.schema}.tidegate_shadow"

    @property
    def windows(self) -> str:
        return f"{self.schema}.tidegate_shadow_windows"

    def diff(self, name: str) -> str:
        return f"{self.schema}.{quote(self.shadow.aggregations[name].view + '_diff')}"

    def create(self) -> Iterator[str]:
        yield f"CREATE TABLE {self.meta} (begins bigint, ends bigint, digest text, whole boolean, compared boolean)"
        yield (
            f"CREATE TABLE {self.windows} (aggregation text, window_start timestamptz, window_end timestamptz, "
            "partials bigint, revisions bigint, late text, state text NOT NULL DEFAULT 'same', "
            f"PRIMARY KEY (aggregation, {_WINDOWS}))"
        )

    def note(self, begin: int, end: int) -> str:
        """What stands in the live tables now."""
        arms = [
            f"SELECT {literal(name)}, {_WINDOWS}, partials, revisions, late FROM ({self._standing(name, begin, end)}) AS s"
            for name in self.live.aggregations
        ]
        return f"INSERT INTO {self.windows} " + " UNION ALL ".join(arms)

    def _standing(self, name: str, begin: int, end: int, tables: StoreTables | None = None) -> str:
        """Per window: how many partials, the sum of their revisions, which grows with each change, and its late counts."""
        tables = tables or self.live
        within = self._within("window_start", begin, end)
        counts = ", ".join(f"sum({field})" for field in LateCounts._fields)
        return (
            f"SELECT window_start, window_end, coalesce(p.partials, 0) AS partials, coalesce(p.revisions, 0) AS revisions, "
            f"coalesce(l.late, {_NONE_LATE}) AS late FROM (SELECT {_WINDOWS}, count(*) AS partials, sum(revision) AS revisions "
            f"FROM {qualified(tables.aggregations[name].partials)} WHERE {within} GROUP BY {_WINDOWS}) AS p "
            f"FULL JOIN (SELECT {_WINDOWS}, concat_ws('/', {counts}) AS late FROM {qualified(tables.late_windows)} "
            f"WHERE pipeline = {literal(self.pipeline)} AND aggregation = {literal(name)} AND {within} "
            f"GROUP BY {_WINDOWS}) AS l USING ({_WINDOWS})"
        )

    def _within(self, column: str, begin: int, end: int) -> str:
        return f"{column} >= {self.sql.instant(str(begin))} AND {column} < {self.sql.instant(str(end))}"

    def mark_changed(self, name: str, begin: int, end: int) -> str:
        """Windows that have changed in the live tables since: `changed`. They are not compared."""
        return (
            f"INSERT INTO {self.windows} AS w (aggregation, {_WINDOWS}, partials, revisions, late, state) "
            f"SELECT {literal(name)}, n.window_start, n.window_end, n.partials, n.revisions, n.late, 'changed' "
            f"FROM ({self._standing(name, begin, end)}) AS n LEFT JOIN {self.windows} AS b "
            f"ON b.aggregation = {literal(name)} AND b.window_start = n.window_start AND b.window_end = n.window_end "
            "WHERE (b.partials, b.revisions, b.late) IS DISTINCT FROM (n.partials, n.revisions, n.late) "
            f"ON CONFLICT (aggregation, {_WINDOWS}) DO UPDATE SET state = 'changed' WHERE w.state <> 'promoted'"
        )

    def compare(self, name: str, begin: int, end: int) -> str:
        """The table of results that differ."""
        tables = self.shadow.aggregations[name]
        keys = ", ".join(quote(key) for key in tables.keys)
        values = ["records", *(measure.name for measure in tables.plan.measures)]
        shown = ", ".join(f"{quote(value)} AS v{index}" for index, value in enumerate(values))
        sides = " UNION ALL ".join(
            f"SELECT {side} AS side, {keys}, {shown} FROM {schema}.{quote(tables.view)} "
            f"WHERE {self._within('window_start', begin, end)}"
            for side, schema in enumerate((self.live_schema, self.schema))
        )
        both = ", ".join(
            f"(array_agg(v{index}) FILTER (WHERE side = {side}))[1] AS {prefix}{index}"
            for index in range(len(values))
            for side, prefix in enumerate(("live", "new"))
        )
        differs = " OR ".join(
            ["live0 IS DISTINCT FROM new0", *map(_differs, range(1, len(values)), tables.plan.measures)]
        )
        return (
            f"CREATE TABLE {self.diff(name)} AS SELECT * FROM (SELECT {keys}, {both} FROM ({sides}) AS u GROUP BY {keys}) AS d "
            f"WHERE ({differs}) AND NOT EXISTS (SELECT 1 FROM {self.windows} AS w WHERE w.aggregation = {literal(name)} "
            "AND w.window_start = d.window_start AND w.window_end = d.window_end AND w.state = 'changed')"
        )

    def mark_differing(self, name: str, begin: int, end: int) -> Iterator[str]:
        """Windows with a result that differs, or other late counts: `differs`."""
        target = f"INSERT INTO {self.windows} AS w (aggregation, {_WINDOWS}, partials, revisions, late, state) "
        conflict = f"ON CONFLICT (aggregation, {_WINDOWS}) DO UPDATE SET state = 'differs' WHERE w.state = 'same'"
        yield (
            f"{target} SELECT DISTINCT {literal(name)}, {_WINDOWS}, 0, 0, {_NONE_LATE}, 'differs' "
            f"FROM {self.diff(name)} {conflict}"
        )
        yield (
            f"{target} SELECT {literal(name)}, {_WINDOWS}, 0, 0, {_NONE_LATE}, 'differs' "
            f"FROM ({self._standing(name, begin, end, self.shadow)}) AS s LEFT JOIN (SELECT {_WINDOWS}, late AS before "
            f"FROM {self.windows} WHERE aggregation = {literal(name)}) AS b USING ({_WINDOWS}) "
            f"WHERE s.late <> coalesce(b.before, {_NONE_LATE}) {conflict}"
        )
        yield (  # late windows that the recomputation has not
            f"UPDATE {self.windows} AS w SET state = 'differs' WHERE w.aggregation = {literal(name)} AND w.state = 'same' "
            f"AND w.late <> {_NONE_LATE} AND NOT EXISTS (SELECT 1 FROM ({self._standing(name, begin, end, self.shadow)}) AS s "
            "WHERE s.window_start = w.window_start AND s.window_end = w.window_end AND s.late = w.late)"
        )

    def mark_lost(self, name: str) -> str:
        """Windows that would have fewer records, where the log does not begin at its beginning any more: `lost`."""
        return (
            f"UPDATE {self.windows} AS w SET state = 'lost' FROM (SELECT {_WINDOWS} FROM {self.diff(name)} "
            f"GROUP BY {_WINDOWS} HAVING coalesce(sum(new0), 0) < coalesce(sum(live0), 0)) AS d "
            f"WHERE w.aggregation = {literal(name)} AND w.state = 'differs' "
            "AND w.window_start = d.window_start AND w.window_end = d.window_end"
        )

    def replayed(self, name: str) -> str:
        """How many records of the windows that differ came in the lane of replays."""
        return (
            f"SELECT coalesce(sum(p.records), 0) FROM {qualified(self.shadow.aggregations[name].partials)} AS p "
            f"JOIN {self.windows} AS w USING ({_WINDOWS}) "
            f"WHERE w.aggregation = {literal(name)} AND w.state = 'differs' AND p.lane = {literal(Lane.REPLAY.value)}"
        )

    def hold(self) -> Iterator[str]:
        """Keep every writer of this pipeline's results out until the end of the transaction, in the order in which they lock."""
        partitions = qualified(self.live.partitions)
        yield (
            f"SELECT 1 FROM {partitions} WHERE pipeline = {literal(self.pipeline)} "
            "ORDER BY pipeline, topic, partition FOR UPDATE"
        )
        yield f"LOCK TABLE {qualified(self.live.amended)} IN SHARE ROW EXCLUSIVE MODE"

    def chosen(self, name: str) -> str:
        """The windows of one aggregation that differ."""
        return f"SELECT {_WINDOWS} FROM {self.windows} WHERE aggregation = {literal(name)} AND state = 'differs'"

    def replace(self, name: str) -> Iterator[str]:
        """The windows of one aggregation that differ, put in the place of the live ones; their revisions rise."""
        live, shadow = self.live.aggregations[name], self.shadow.aggregations[name]
        chosen = self.chosen(name)
        yield from self._replace_partials(live, shadow, chosen)
        if live.estimates is not None and shadow.estimates is not None:
            columns = ", ".join(quote(column.name) for column in live.estimates.columns)
            yield f"DELETE FROM {qualified(live.estimates)} WHERE ({_WINDOWS}) IN ({chosen})"
            yield (
                f"INSERT INTO {qualified(live.estimates)} ({columns}) SELECT {columns} FROM {qualified(shadow.estimates)} "
                f"WHERE ({_WINDOWS}) IN ({chosen})"
            )
        mine = f"pipeline = {literal(self.pipeline)} AND aggregation = {literal(name)} AND ({_WINDOWS}) IN ({chosen})"
        columns = ", ".join(quote(column.name) for column in self.live.late_windows.columns)
        yield f"DELETE FROM {qualified(self.live.late_windows)} WHERE {mine}"
        yield (
            f"INSERT INTO {qualified(self.live.late_windows)} ({columns}) SELECT {columns} "
            f"FROM {qualified(self.shadow.late_windows)} WHERE {mine}"
        )
        yield f"UPDATE {self.windows} SET state = 'promoted' WHERE aggregation = {literal(name)} AND state = 'differs'"

    def _replace_partials(self, live: AggregationTables, shadow: AggregationTables, chosen: str) -> Iterator[str]:
        """Each gets the largest revision of a result of its window, and one more: no result's goes back."""
        names = [column.name for column in live.partials.columns if column.name != "revision"]
        columns, keys = ", ".join(map(quote, names)), ", ".join(map(quote, live.keys))
        yield "DROP TABLE IF EXISTS tidegate_revisions"
        yield (
            f"CREATE TEMPORARY TABLE tidegate_revisions ON COMMIT DROP AS SELECT {_WINDOWS}, max(revision) AS revision FROM "
            f"(SELECT {_WINDOWS}, sum(revision) AS revision FROM {qualified(live.partials)} "
            f"WHERE ({_WINDOWS}) IN ({chosen}) GROUP BY {keys}) AS r GROUP BY {_WINDOWS}"
        )
        yield f"DELETE FROM {qualified(live.partials)} WHERE ({_WINDOWS}) IN ({chosen})"
        yield (
            f"INSERT INTO {qualified(live.partials)} ({columns}, revision) "
            f"SELECT {columns}, coalesce(r.revision, 0) + 1 FROM {qualified(shadow.partials)} AS p "
            f"LEFT JOIN tidegate_revisions AS r USING ({_WINDOWS}) WHERE ({_WINDOWS}) IN ({chosen})"
        )


def _differs(index: int, measure: MeasurePlan) -> str:
    other = f"live{index} IS DISTINCT FROM new{index}"
    if not pa.types.is_floating(measure.result_type):
        return other
    near = f"abs(live{index} - new{index}) <= {_NEAR} * greatest(abs(live{index}), abs(new{index}), {_NEAR})"
    return f"({other} AND NOT coalesce({near}, false))"
