"""The store's tables, from a plan: partition rows, late windows, and per aggregation the partials (and HLL estimates).

tidegate_partitions      one row per source partition: offset, high water, ledger, epoch, owner
tidegate_answers         what handlers and the sink said of each source partition's last batch, if anybody was asked
tidegate_late_windows    how many records each window misses, per source partition
tidegate_seen            dedupe's memory, per source partition
tidegate_holds           who holds the pipeline back for a while, so that nobody else claims its partitions
tidegate_amended         up to which offset the late records of each source partition have been brought into the results
tidegate_timeouts        up to which end windows have left the tables for good
{table}_partials         one row per window, group, source partition and lane
{table}_estimates        one row per window and group: distinct counts over all its partials (approxDistinct only)
{table}_promoted         what promotions have changed and some sink beside the database has not yet (promotions.py alone)
{table}                  the view that adds the partials up (totals.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    event,
    text,
)

from tidegate.errors import ConfigError
from tidegate.ledger import LEDGER_OUTCOMES
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.stages.sql import quote
from tidegate.store.columns import INSTANT, TEXT, column_type, widest_decimal
from tidegate.store.holds import HOLDS, holds_table
from tidegate.store.late_tables import AMENDED, LATE_WINDOWS, amended_table, late_windows_table
from tidegate.store.raw import execute

PARTITIONS = "tidegate_partitions"
ANSWERS = "tidegate_answers"
SEEN = "tidegate_seen"
RUNS = "tidegate_runs"  # made by runs.py alone, when the second engine runs for the first time
TIMEOUTS = "tidegate_timeouts"
PUBLISHED = "tidegate_published"  # made by published.py alone, when it has a sink beside the database

WINDOW = ("window_start", "window_end")
SOURCE = ("topic", "partition", "lane")
_TAIL = ("records", "upto", "revision")
_RESERVED = frozenset({*WINDOW, *SOURCE, *_TAIL, "final"})

# PostgreSQL cuts longer names without an error, so that two of them could become one.
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class AggregationTables:
    """Where one aggregation's results are. `estimates` is None without an approxDistinct measure."""

    plan: AggregationPlan
    view: str
    partials: Table
    estimates: Table | None

    @property
    def group(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.plan.group)

    @property
    def keys(self) -> tuple[str, ...]:
        """What a result is of: the window and the group."""
        return (*WINDOW, *self.group)

    @property
    def identity(self) -> tuple[str, ...]:
        """What a partial is of: the window, the group, the source partition and the lane."""
        return (*self.keys, *SOURCE)

    @property
    def sketches(self) -> tuple[str, ...]:
        """Names of the approxDistinct measures."""
        return tuple(measure.name for measure in self.plan.measures if measure.kind == "approxDistinct")


@dataclass(frozen=True, slots=True)
class StoreTables:
    metadata: MetaData
    partitions: Table
    answers: Table
    late_windows: Table
    amended: Table
    seen: Table
    holds: Table
    timeouts: Table
    aggregations: Mapping[str, AggregationTables]


def store_tables(plan: Plan, names: Mapping[str, str], schema: str | None) -> StoreTables:
    """The tables of a plan. `names`: aggregation → table, by default its own name. `schema`: None for SQLite.

    Raises ConfigError for names that collide or are too long, and for types that no column holds.
    """
    metadata = MetaData(schema=schema)
    unknown = sorted(set(names) - {aggregation.name for aggregation in plan.aggregations})
    if unknown:
        raise ConfigError(
            "no such aggregation",
            field="sinks.tables",
            value=unknown[0],
            expected=", ".join(aggregation.name for aggregation in plan.aggregations) or "an aggregation's name",
        )
    aggregations: dict[str, AggregationTables] = {}
    for aggregation in plan.aggregations:
        view = names.get(aggregation.name, aggregation.name)
        _check_names(aggregation, view, [tables.view for tables in aggregations.values()])
        aggregations[aggregation.name] = AggregationTables(
            aggregation, view, _partials(metadata, aggregation, view), _estimates(metadata, aggregation, view)
        )
    shared = partition_table(metadata), _answers(metadata), late_windows_table(metadata), amended_table(metadata)
    return StoreTables(metadata, *shared, _seen(metadata), holds_table(metadata), _timeouts(metadata), aggregations)


def partition_table(metadata: MetaData) -> Table:
    """One row per pipeline and source partition. `high_water` and `dedupe_clock` in ms since the epoch.

    `topic_id` is that of the log which `upto` is an offset in. `seen_upto`: up to which offset the table of seen keys is
    complete (-1: nobody has filled it). `worker_upto`: up to where a worker has written, whose topics come after the store.
    `lines`, `replays`: what waits for a delayed retry, and which replays were there (tidegate.stages: turns, repeats).
    """
    return Table(
        PARTITIONS,
        metadata,
        Column("pipeline", TEXT, primary_key=True),
        Column("topic", TEXT, primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("upto", BigInteger, nullable=False),
        Column("high_water", BigInteger),
        Column("dedupe_clock", BigInteger),
        Column("idle", Boolean(create_constraint=False), nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("owner", TEXT, nullable=False),
        Column("previous_owner", TEXT, nullable=False),
        *(Column(name, BigInteger, nullable=False) for name in ("read", *LEDGER_OUTCOMES)),
        Column("updated_at", INSTANT, nullable=False),
        Column("topic_id", TEXT, nullable=False, server_default=""),  # "": a row of before the column was there
        Column("seen_upto", BigInteger, nullable=False, server_default="-1"),
        Column("worker_upto", BigInteger, nullable=False, server_default="-2"),  # -2: the next claim fills it in
        *(Column(name, LargeBinary, server_default=text("NULL")) for name in ("lines", "replays")),  # null: none
        Column("replayed", BigInteger, nullable=False, server_default="0"),
    )


def _answers(metadata: MetaData) -> Table:
    """Beside the partition rows, so that whoever reads or updates those does not drag a batch's rows along."""
    table = Table(
        ANSWERS,
        metadata,
        Column("pipeline", TEXT, primary_key=True),
        Column("topic", TEXT, primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("upto", BigInteger, nullable=False),
        Column("answers", LargeBinary, nullable=False),
    )
    event.listen(table, "after_create", _store_uncompressed)
    return table


def _store_uncompressed(table: Table, connection: Connection, **_: Any) -> None:
    """Answers are compressed already; PostgreSQL would try once more, with each batch."""
    if connection.dialect.name == "postgresql":
        execute(connection, f"ALTER TABLE {qualified(table)} ALTER COLUMN answers SET STORAGE EXTERNAL")


def _timeouts(metadata: MetaData) -> Table:
    """One row per pipeline. `upto` in ms since the epoch; see timeouts.py."""
    columns = Column("pipeline", TEXT, primary_key=True), Column("upto", BigInteger, nullable=False)
    return Table(TIMEOUTS, metadata, *columns)


def qualified(table: Table) -> str:
    """The table's quoted name with its schema. (SQLAlchemy's own doubles percent signs for parameters that are not there.)"""
    return ".".join(quote(part) for part in (table.schema, table.name) if part)


def _seen(metadata: MetaData) -> Table:
    """`at` in ms since the epoch."""
    table = Table(
        SEEN,
        metadata,
        Column("pipeline", TEXT, primary_key=True),
        Column("topic", TEXT, primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("key", LargeBinary, primary_key=True),
        Column("at", BigInteger, nullable=False),
    )
    Index(f"{SEEN}_by_time", table.c.pipeline, table.c.topic, table.c.partition, table.c.at)
    return table


def _partials(metadata: MetaData, aggregation: AggregationPlan, view: str) -> Table:
    table = Table(
        f"{view}_partials",
        metadata,
        *_key_columns(aggregation),
        Column("topic", TEXT, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("lane", TEXT, nullable=False),
        *(
            Column(partial.name, column_type(partial.type, where=f"aggregations.{aggregation.name}: {partial.name}"))
            for partial in aggregation.partials
        ),
        *(Column(name, BigInteger, nullable=False) for name in _TAIL),
        # An update changes no indexed column; with room on the page it needs no new index entry (HOT).
        postgresql_with={"fillfactor": 70},
    )
    _one_row_per(table, (*WINDOW, *(column.name for column in aggregation.group), *SOURCE))
    for partial in aggregation.partials:
        # SQLite's text has no precision: this refuses what numeric(p, s) refuses.
        if (longest := widest_decimal(partial.type)) is not None:
            check = CheckConstraint(f"length(ltrim({quote(partial.name)}, '-')) <= {longest}")
            table.append_constraint(check.ddl_if(dialect="sqlite"))
    return table


def _estimates(metadata: MetaData, aggregation: AggregationPlan, view: str) -> Table | None:
    sketched = [measure.name for measure in aggregation.measures if measure.kind == "approxDistinct"]
    if not sketched:
        return None
    columns = [Column(name, BigInteger) for name in sketched]
    table = Table(f"{view}_estimates", metadata, *_key_columns(aggregation), *columns)
    _one_row_per(table, (*WINDOW, *(column.name for column in aggregation.group)))
    return table


def _key_columns(aggregation: AggregationPlan) -> list[Column[Any]]:
    group = [
        Column(column.name, column_type(column.type, where=f"aggregations.{aggregation.name}: {column.name}"))
        for column in aggregation.group
    ]
    return [Column("window_start", INSTANT, nullable=False), Column("window_end", INSTANT, nullable=False), *group]


def _one_row_per(table: Table, names: tuple[str, ...]) -> None:
    """Unique, with null a value like any other. SQLite has no NULLS NOT DISTINCT: there an index says it."""
    constraint = UniqueConstraint(*(table.c[name] for name in names), postgresql_nulls_not_distinct=True)
    table.append_constraint(constraint.ddl_if(dialect="postgresql"))
    expressions = [text(expression) for expression in null_safe(table, names)]
    Index(f"{table.name}_key", *expressions, unique=True, _table=table).ddl_if(dialect="sqlite")


def null_safe(table: Table, names: tuple[str, ...]) -> list[str]:
    """SQLite expressions that are unique exactly when the columns are, nulls being equal."""
    expressions: list[str] = []
    for name in names:
        column = quote(name)
        expressions += [f"{column} IS NULL", f"ifnull({column}, 0)"] if table.c[name].nullable else [column]
    return expressions


def _check_names(aggregation: AggregationPlan, view: str, taken: list[str]) -> None:
    """Raises ConfigError for a table or column name that cannot be used."""
    where = f"aggregations.{aggregation.name}"
    used = {PARTITIONS, ANSWERS, LATE_WINDOWS, AMENDED, SEEN, HOLDS, TIMEOUTS, RUNS, PUBLISHED}.union(
        *map(_tables_of, taken)
    )
    if used.intersection(_tables_of(view)):
        raise ConfigError(
            "this table is used twice", field=where, value=view, hint="sinks.tables gives it another name"
        )
    mine = [column.name for column in aggregation.group]
    mine += [name for measure in aggregation.measures for name in (measure.name, *(p.name for p in measure.partials))]
    lower = [name.lower() for name in mine]  # DuckDB and SQLite do not tell `Id` from `id`
    for index, name in enumerate(mine):
        if lower[index] in _RESERVED or lower[index] in lower[:index]:
            raise ConfigError(
                "a column of the result table has this name already",
                field=where,
                value=name,
                hint="rename it: groupBy takes {name, expression}, a measure's name is yours to choose",
            )
    for name in (f"{view}_estimates", *mine):
        if len(name.encode()) > _LONGEST_NAME:
            raise ConfigError(
                "a name too long for a table or column",
                field=where,
                value=name,
                expected=f"at most {_LONGEST_NAME} bytes",
                hint="shorten the measure's name, or name the table in sinks.tables",
            )


def _tables_of(view: str) -> tuple[str, ...]:
    return view, f"{view}_partials", f"{view}_estimates", f"{view}_promoted"
