"""What promotions have changed (shadow.py), for the sinks that follow the store: a promotion moves no offset that they would see.

Each has a number. In its own transaction it writes down, beside each aggregation's partials, every result of the windows that it
replaces, those that it takes away among them, and where these were. A sink's rows say which promotion it has (published.py);
what all sinks have is deleted. Of what one does not come for, each result is kept once, with the last promotion of it. A pipeline
whose file has no such sink, and that none has ever followed, writes nothing down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, inspect

from tidegate.stages.sql import literal, quote
from tidegate.store.check import add_missing_columns
from tidegate.store.columns import TEXT
from tidegate.store.copying import as_instants, copy_in
from tidegate.store.postgres import take_turn
from tidegate.store.publication import published_table
from tidegate.store.raw import execute, fetch
from tidegate.store.tables import WINDOW, AggregationTables, StoreTables, qualified

NUMBER = "tidegate_promotion"
_WINDOWS = ", ".join(WINDOW)


class Promotions:
    """Of one pipeline. Each call within the caller's transaction. `live`: the store's own tables."""

    def __init__(self, live: StoreTables, pipeline: str) -> None:
        self._live, self._schema = live, str(live.partitions.schema)
        metadata = MetaData(schema=live.partitions.schema)
        self.published = published_table(metadata)
        self.promoted: Mapping[str, Table] = {
            name: _promoted_table(metadata, tables) for name, tables in live.aggregations.items()
        }
        self._turn = f"hashtext({literal(f'tidegate promotes {pipeline}')})"
        self._mine = f"FROM {qualified(self.published)} WHERE pipeline = {literal(pipeline)}"

    def prepare(self, connection: Connection) -> None:
        """Create what is missing, in a transaction of its own."""
        take_turn(connection, self._schema)
        for table in (self.published, *self.promoted.values()):
            table.create(connection, checkfirst=True)
        add_missing_columns(connection, inspect(connection), self.published)

    @property
    def exists(self) -> str:
        """SQL that says whether a sink has ever followed a pipeline of this schema."""
        return f"SELECT to_regclass({literal(qualified(self.published))}) IS NOT NULL"

    def last(self, connection: Connection) -> int:
        """The number of the last promotion that some sink may lack; 0: there is none."""
        most = " UNION ALL ".join(f"SELECT max({NUMBER}) AS n FROM {qualified(t)}" for t in self.promoted.values())
        return int(fetch(connection, f"SELECT coalesce(max(n), 0) FROM ({most}) AS u")[0][0]) if most else 0

    def begin(self, connection: Connection, *, wanted: bool) -> int | None:
        """The number of a new promotion; None: no sink has ever followed, and none is `wanted`. A sink that is planned for only
        now waits until it has ended (`hold_off`)."""
        execute(connection, f"SELECT pg_advisory_xact_lock({self._turn})")
        known = fetch(connection, f"SELECT max(greatest(promoted, next_promoted)) {self._mine}")[0][0]
        return None if known is None and not wanted else 1 + max(known or 0, self.last(connection))

    def hold_off(self, connection: Connection) -> None:
        """No promotion begins until the transaction ends; one that has begun is waited for."""
        execute(connection, f"SELECT pg_advisory_xact_lock_shared({self._turn})")

    def note(self, name: str, number: int, shadow: AggregationTables, chosen: str) -> str:
        """Write down the results of windows of one aggregation, before they are replaced by those of the shadow; what was noted
        of one before goes with it. `chosen`: SQL that gives the windows."""
        tables, noted = self._live.aggregations[name], qualified(self.promoted[name])
        keys, within = ", ".join(map(quote, tables.keys)), f"({_WINDOWS}) IN ({chosen})"
        offsets = "CAST(jsonb_object_agg(topic || '-' || partition, upto ORDER BY upto) AS TEXT)"
        sides = (
            f"SELECT {number} AS n, {keys}, {offsets} AS upto, sum(revision) AS revision FROM {qualified(tables.partials)} "
            f"WHERE {within} GROUP BY {keys}",
            f"SELECT DISTINCT {number}, {keys}, NULL, CAST(NULL AS BIGINT) FROM {qualified(shadow.partials)} WHERE {within}",
            "SELECT * FROM before",
        )
        newest = "(array_agg(upto ORDER BY n DESC) FILTER (WHERE upto IS NOT NULL))[1]"
        return (
            f"WITH before AS (DELETE FROM {noted} WHERE {within} RETURNING {NUMBER}, {keys}, upto, revision) "
            f"INSERT INTO {noted} ({NUMBER}, {keys}, upto, revision) SELECT max(n), {keys}, {newest}, max(revision) "
            f"FROM ({' UNION ALL '.join(sides)}) AS u GROUP BY {keys}"
        )

    def note_written(self, connection: Connection, written: Mapping[str, pa.Table]) -> None:
        """Of each aggregation, results that a sink has got behind newer ones: as if they had been replaced just now. `upto` and
        `revision` as it was given them."""
        number = self.begin(connection, wanted=True)
        for name, table in written.items():
            kept = as_instants(table.select([*self._live.aggregations[name].keys, "upto", "revision"]))
            numbers = pa.array([number] * kept.num_rows, pa.int64())
            copy_in(connection, qualified(self.promoted[name]), kept.add_column(0, NUMBER, numbers))

    def forget(self, connection: Connection) -> None:
        """Delete what all sinks have."""
        for table in self.promoted.values():
            execute(connection, f"DELETE FROM {qualified(table)} WHERE {NUMBER} <= (SELECT min(promoted) {self._mine})")


def removed_since(promoted: Table, tables: AggregationTables, after: int, upto: int) -> str:
    """SQL for the results that promotions after `after`, up to `upto`, have taken away and that have not come back: the key, and
    `upto` and `revision` as they were."""
    keys = ", ".join(map(quote, tables.keys))
    noted = f"FROM {qualified(promoted)} WHERE {between(after, upto)}"
    return (
        f"SELECT {keys}, max(upto) AS upto, CAST(max(revision) AS BIGINT) AS revision FROM ("
        f"SELECT {keys}, upto, revision, 0 AS there {noted} UNION ALL "
        f"SELECT {keys}, NULL, NULL, 1 FROM {qualified(tables.partials)} "
        f"WHERE window_start IN (SELECT window_start {noted})) AS u "
        f"GROUP BY {keys} HAVING max(there) = 0 AND max(upto) IS NOT NULL"
    )


def between(after: int, upto: int) -> str:
    """SQL for "of a promotion after `after`, up to `upto`"."""
    return f"{NUMBER} > {after} AND {NUMBER} <= {upto}"


def _promoted_table(metadata: MetaData, tables: AggregationTables) -> Table:
    """`upto`: source partition → offset, as JSON, of a result that was there; null: it was not. `revision`: what it had."""
    keys: Iterator[Column[object]] = (Column(key, tables.partials.c[key].type) for key in tables.keys)
    tail = Column("upto", TEXT), Column("revision", BigInteger)
    return Table(
        f"{tables.view}_promoted", metadata, Column(NUMBER, BigInteger, nullable=False, index=True), *keys, *tail
    )
