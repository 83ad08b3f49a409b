"""A shadow of the live tables, for windows that are computed anew: compared with them, and put in their place at once."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa
from sqlalchemy import Connection, inspect

from tidegate.clock import Clock
from tidegate.config.sinks import Follower, PostgresSink
from tidegate.errors import ConfigError
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.stages.sql import literal, quote
from tidegate.stages.windows import NEVER
from tidegate.store.amending import late_accounts
from tidegate.store.base import LateAccount
from tidegate.store.check import add_missing_columns
from tidegate.store.late import read_account
from tidegate.store.postgres import PostgresStore, take_turn
from tidegate.store.promotions import Promotions
from tidegate.store.raw import execute, fetch
from tidegate.store.shadow_sql import ShadowSql
from tidegate.store.tables import WINDOW, store_tables
from tidegate.store.timeouts import TimeoutRows

_SAMPLES: Final = 10  # differing results that are shown of an aggregation
_LONGEST: Final = 40  # characters of the pipeline's id in the schema's name


class Range(NamedTuple):
    """Windows that start in `begin` ≤ start < `end` (ms)."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class MeasureDiff:
    """One measure in one aggregation. `largest`: the largest change of a number, 0 when none changed."""

    name: str
    changed: int
    largest: float | None


@dataclass(frozen=True, slots=True)
class AggregationDiff:
    """`windows`: state → how many (same, differs, changed, lost, promoted). `added`, `removed`, `differing`: results.

    `samples`: key and measure → (live, recomputed), of the measures that differ. `replayed`: how many of the records in
    windows that differ are replays of dead letters, or delayed retries: they count beside their original if that passes now.
    """

    name: str
    windows: dict[str, int]
    added: int
    removed: int
    differing: int
    measures: list[MeasureDiff]
    samples: list[dict[str, Any]]
    replayed: int


class ShadowStore(PostgresStore):
    """The tables of the plan in a schema of their own beside the live ones; written like those. One shadow per pipeline."""

    def __init__(self, plan: Plan, sink: PostgresSink, clock: Clock) -> None:
        name = shadow_schema(plan.pipeline.pipeline_id, sink.schema_)
        super().__init__(plan, sink.model_copy(update={"schema_": name}), clock)
        live = store_tables(plan, sink.tables, sink.schema_)
        self._promotions = Promotions(live, plan.pipeline.pipeline_id)
        self._sql = ShadowSql(plan.pipeline.pipeline_id, quote(name), live, self._tables, self.sql, quote(sink.schema_))

    def begin(self, span: Range, digest: str) -> list[LateAccount]:
        """A new shadow in the place of an old one. What stands in the live tables is noted, and returned are the accounts of
        that very moment: up to where the log is to be read. Raises StoreUnavailable; ConfigError for windows that have timed
        out."""
        with self._transaction() as connection:
            self._bring_up_to_date(connection)
            self._require_there(connection, span)
        with self._transaction() as connection:
            execute(connection, f"DROP SCHEMA IF EXISTS {self._sql.schema} CASCADE")
        self.prepare()
        with self._transaction() as connection:
            execute(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self._unhurried(connection)
            for statement in self._sql.create():
                execute(connection, statement)
            values = f"({span.begin}, {span.end}, {literal(digest)}, true, false)"
            execute(connection, f"INSERT INTO {self._sql.meta} VALUES {values}")
            execute(connection, self._sql.note(*span))
            rows = fetch(connection, read_account(self._sql.live, self.sql, self._sql.pipeline))
        return late_accounts(rows)

    def _bring_up_to_date(self, connection: Connection) -> None:
        """What of the live tables an older version has not made; nobody may have started since. Their views are left alone."""
        live, inspector = self._sql.live, inspect(connection)
        take_turn(connection, str(live.timeouts.schema))
        live.timeouts.create(connection, checkfirst=True)
        add_missing_columns(connection, inspector, live.late_windows)

    def _require_there(self, connection: Connection, span: Range) -> None:
        gone = TimeoutRows(self._sql.live, self.sql, self._sql.pipeline).upto(connection)
        first = max((gone - aggregation.size + 1 for aggregation in self._plan.aggregations), default=NEVER)
        if gone != NEVER and span.begin < first:
            begin = datetime.fromtimestamp(first / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            raise ConfigError(
                "windows of that time have left the database for good (eventTime.stateTimeout)",
                field="--from",
                expected=f"{begin} or later",
            )

    def compare(self, *, whole: bool) -> None:
        """Say of each window what it is. `whole`: whether the log still had its beginning in every partition."""
        with self._transaction() as connection:
            execute(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self._unhurried(connection)
            span, _ = self._span(connection)
            for name in self._tables.aggregations:
                execute(connection, self._sql.mark_changed(name, *span))
                execute(connection, f"DROP TABLE IF EXISTS {self._sql.diff(name)}")
                execute(connection, self._sql.compare(name, *span))
                for statement in self._sql.mark_differing(name, *span):
                    execute(connection, statement)
                if not whole:
                    execute(connection, self._sql.mark_lost(name))
            execute(connection, f"UPDATE {self._sql.meta} SET compared = true, whole = {str(whole).lower()}")

    def promote(self, digest: str) -> None:
        """In one transaction: 1. every writer of the pipeline is held 2. windows that have changed since are set apart
        3. the others that differ are noted for the sinks that follow, and replace the live ones. Once more changes nothing.

        Raises ConfigError when there is no shadow, or one of another pipeline file; StoreUnavailable.
        """
        wanted = any(isinstance(sink, Follower) for sink in self._plan.pipeline.sinks)
        followed = self._followed(wanted=wanted)
        with self._transaction() as connection:
            self._unhurried(connection)
            span, found = self._span(connection)
            if found != digest:
                raise ConfigError(
                    "the pipeline file has changed since the shadow was computed",
                    field="--promote",
                    hint="compute it again: tidegate batch backfill PIPELINE --from … --to …",
                )
            for statement in self._sql.hold():
                execute(connection, statement)
            number = self._promotions.begin(connection, wanted=wanted) if followed else None
            for name, shadow in self._tables.aggregations.items():
                execute(connection, self._sql.mark_changed(name, *span))
                if number is not None:
                    execute(connection, self._promotions.note(name, number, shadow, self._sql.chosen(name)))
                for statement in self._sql.replace(name):
                    execute(connection, statement)

    def _followed(self, *, wanted: bool) -> bool:
        """Whether sinks follow the live tables, or may have; the tables that say so are there then. `wanted`: by the file."""
        with self._transaction() as connection:
            if not wanted and not fetch(connection, self._promotions.exists)[0][0]:
                return False
            self._promotions.prepare(connection)
        return True

    def diffs(self) -> tuple[Range, bool, list[AggregationDiff]]:
        """Which windows, whether the log had its beginning, and what differs."""
        with self._transaction(reads=True) as connection:
            span, _ = self._span(connection)
            whole = bool(fetch(connection, f"SELECT whole FROM {self._sql.meta}")[0][0])
            return span, whole, [self._diff(connection, aggregation) for aggregation in self._plan.aggregations]

    def _diff(self, connection: Connection, plan: AggregationPlan) -> AggregationDiff:
        table = self._sql.diff(plan.name)
        states = fetch(
            connection,
            f"SELECT state, count(*) FROM {self._sql.windows} WHERE aggregation = {literal(plan.name)} GROUP BY 1 ORDER BY 1",
        )
        added, removed, both = fetch(
            connection,
            "SELECT count(*) FILTER (WHERE live0 IS NULL), count(*) FILTER (WHERE new0 IS NULL), "
            f"count(*) FILTER (WHERE live0 IS NOT NULL AND new0 IS NOT NULL) FROM {table}",
        )[0]
        measures = [
            MeasureDiff(measure.name, *fetch(connection, _measured(table, index, measure.result_type))[0])
            for index, measure in enumerate(plan.measures, 1)
        ]
        samples, replayed = self._samples(connection, plan), fetch(connection, self._sql.replayed(plan.name))[0][0]
        return AggregationDiff(plan.name, dict(states), added, removed, both, measures, samples, int(replayed))

    def _samples(self, connection: Connection, plan: AggregationPlan) -> list[dict[str, Any]]:
        keys = [*WINDOW, *(column.name for column in plan.group)]
        values = ["records", *(measure.name for measure in plan.measures)]
        columns = [*map(quote, keys), *(f"{side}{index}" for index in range(len(values)) for side in ("live", "new"))]
        order = ", ".join(map(quote, keys))
        query = f"SELECT {', '.join(columns)} FROM {self._sql.diff(plan.name)} ORDER BY {order} LIMIT {_SAMPLES}"
        rows = fetch(connection, query)
        return [_sample(keys, values, row) for row in rows]

    def _span(self, connection: Connection) -> tuple[Range, str]:
        there = fetch(connection, f"SELECT to_regclass({literal(self._sql.meta)}) IS NOT NULL")[0][0]
        rows = fetch(connection, f"SELECT begins, ends, digest FROM {self._sql.meta}") if there else []
        if not rows:
            raise ConfigError(
                "no shadow has been computed",
                field="--promote",
                hint="compute one: tidegate batch backfill PIPELINE --from … --to …",
            )
        return Range(rows[0][0], rows[0][1]), rows[0][2]

    def require_compared(self) -> None:
        """Raises ConfigError for a shadow whose computation did not come to its end."""
        with self._transaction(reads=True) as connection:
            self._span(connection)
            if not fetch(connection, f"SELECT compared FROM {self._sql.meta}")[0][0]:
                raise ConfigError(
                    "the shadow is not whole: its computation did not come to its end",
                    field="--promote",
                    hint="compute it again: tidegate batch backfill PIPELINE --from … --to …",
                )


def shadow_schema(pipeline: str, schema: str) -> str:
    """The schema of a pipeline's shadow; no two pipelines share one."""
    return f"tidegate_shadow_{pipeline[:_LONGEST]}_{zlib.crc32(f'{schema} {pipeline}'.encode()):x}"[:63]


def _measured(table: str, index: int, type_: pa.DataType) -> str:
    number = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    values = [f"CAST({side}{index} AS DOUBLE PRECISION)" for side in ("live", "new")]
    largest = f"max(abs({' - '.join(values)}))" if number else "CAST(NULL AS DOUBLE PRECISION)"
    return (
        f"SELECT count(*) FILTER (WHERE live{index} IS DISTINCT FROM new{index}), {largest} "
        f"FROM {table} WHERE live0 IS NOT NULL AND new0 IS NOT NULL"
    )


def _sample(keys: Sequence[str], values: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    pairs = zip(row[len(keys) :: 2], row[len(keys) + 1 :: 2], strict=True)
    changed = {name: {"live": a, "recomputed": b} for name, (a, b) in zip(values, pairs, strict=True) if a != b}
    return {**dict(zip(keys, row, strict=False)), "changed": changed}
