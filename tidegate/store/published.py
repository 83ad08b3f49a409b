"""What the sinks beside the store have of its results: a row per sink and source partition, which follows the store's own.

Only the second engine publishes so; hence PostgreSQL only, over connections of its own, and a table that it alone makes.

1. plan     what a sink is to have next: from its rows to the partition rows as they are now, under the next version
2. results  the totals of what has changed between the two, and of the windows that have closed (changed.py), or that a
            promotion has replaced (promotions.py)
3. done     the sink has them: its rows move on

Whoever is killed between 1 and 3 finds the plan again: the same version and the same windows and groups. What has changed in
them since is newer, and comes once more under the next version. Whoever was paused there, and overtaken by another run, may have
written older results behind newer ones: at 3 he learns of it, and has the newest of them given again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from sqlalchemy import ColumnElement, Connection, bindparam, case, func, insert, literal_column, select, update

from tidegate.clock import SystemClock
from tidegate.config.sinks import OutputMode, PostgresSink
from tidegate.errors import StoreFenced
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.stages.sql import literal
from tidegate.store.base import PartitionRow
from tidegate.store.changed import Changed
from tidegate.store.failures import public_error
from tidegate.store.partition_rows import PartitionRows
from tidegate.store.postgres import connect_server
from tidegate.store.promotions import Promotions
from tidegate.store.publication import Position, Publication, planned
from tidegate.store.raw import execute
from tidegate.store.refusal import DRIVER_ERRORS
from tidegate.store.tables import store_tables
from tidegate.store.watermark import EVERYTHING, states_read, watermark_of


class Published:
    """The rows of one pipeline. Not for use by two threads at once."""

    def __init__(self, plan: Plan, sink: PostgresSink) -> None:
        """`sink`: the database that is the store."""
        self._pipeline, self._file = plan.pipeline.pipeline_id, plan.pipeline
        self._delay = plan.pipeline.event_time.delay if plan.pipeline.event_time else 0
        self._engine = connect_server(sink.url.get_secret_value(), timeout=sink.timeout)
        self._name = f"sink {sink.name!r} (PostgreSQL)"
        self._stored = store_tables(plan, sink.tables, sink.schema_)
        self._partitions = PartitionRows(self._stored.partitions, self._pipeline, SystemClock())
        self._promotions = Promotions(self._stored, self._pipeline)
        self._table = self._promotions.published
        self._changed = {
            name: Changed(tables, self._promotions.promoted[name], self._engine.dialect)
            for name, tables in self._stored.aggregations.items()
        }

    def prepare(self) -> None:
        """Create the tables that are missing. Raises StoreUnavailable."""
        with self._transaction() as connection:
            self._promotions.prepare(connection)

    def plan(self, sink: str, epochs: Mapping[TopicPartition, int], *, shared: bool = False) -> Publication | None:
        """What this sink is to have next; None: it has all. `epochs`: of the caller's claims. `shared`: workers write to it as
        well, so that it may have what was taken away before it was first planned for.

        Raises StoreFenced when somebody else has claimed one of the partitions since: what he writes is newer.
        """
        with self._transaction() as connection:
            self._take_turn(connection, sink)
            rows = self._claimed(connection, epochs)
            there = self._rows(connection, sink)
            if any(row.next_upto is not None for row in there.values()):
                return planned(sink, there)
            states = {tp: row.state for tp, row in rows.items()}
            return self._next(connection, sink, there, states, shared)

    def require_claims(self, epochs: Mapping[TopicPartition, int]) -> None:
        """Raises StoreFenced as `plan`."""
        with self._transaction() as connection:
            self._claimed(connection, epochs)

    def results(
        self, publication: Publication, aggregation: AggregationPlan, mode: OutputMode, touched: pa.Table | None
    ) -> pa.Table:
        """One aggregation's results for a sink (see batch/publish/target.py). `touched`: the windows and groups that have
        changed, if that is known, else they are looked for."""
        changed = self._changed[aggregation.name]
        promotions = publication.promoted_before, publication.promoted
        with self._transaction() as connection:
            removed = changed.removed(connection, *promotions, publication.closed)
            if mode == "complete":
                return pa.concat_tables([changed.all(connection, publication.closed), removed])
            changed.stage(connection)
            if touched is not None:
                changed.take(connection, touched)
            else:
                execute(connection, "SET LOCAL statement_timeout = 0")  # all partials are looked through
                moved = {tp: at for tp, at in publication.before.items() if at != publication.after[tp]}
                changed.find(connection, moved)
            changed.add_promoted(connection, *promotions)
            changed.add_closed(connection, publication.closed_before, publication.closed)
            if mode == "append":
                changed.keep_closed(connection, publication.closed)
                removed = removed.filter(removed["final"])
            return pa.concat_tables([changed.read(connection, publication.closed), removed])

    def done(self, publication: Publication, written: Mapping[str, pa.Table] | None = None) -> None:
        """The sink has it. Once more changes nothing. `written`: aggregation → the results, for a sink whose last writer is
        right, at least with the columns of the key, `upto` and `revision`.

        Raises StoreFenced when another run has moved the rows on since: what was written may be older than what that one wrote,
        so the rows are set back to where this publication began, and the next one gives the newest of all of it again. What was
        `written` and is there no more, because of a promotion, is taken away again.
        """
        with self._transaction() as connection:
            self._take_turn(connection, publication.sink)
            newest = max((row.version for row in self._rows(connection, publication.sink).values()), default=0)
            if newest == publication.version:
                self._move_on(connection, publication)
            else:
                self._set_back(connection, publication)
                self._promotions.note_written(connection, written or {})
        if newest != publication.version:
            raise StoreFenced(f"sink {publication.sink!r}: another run has published version {newest}")

    def forget_promotions(self) -> None:
        """Let go of what is written down of promotions that all sinks have. For when every sink of the file has been looked at:
        one that has no rows yet would not be waited for."""
        with self._transaction() as connection:
            self._promotions.forget(connection)

    def close(self) -> None:
        self._engine.dispose()

    def _claimed(
        self, connection: Connection, epochs: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, PartitionRow]:
        """All partition rows."""
        rows = {row.tp: row for row in self._partitions.all(connection)}
        for tp, epoch in epochs.items():
            if (found := rows.get(tp)) is None or found.epoch != epoch:
                owner = found.owner if found else "nobody"
                raise StoreFenced(
                    f"{tp}: {owner} has the partition: this run publishes no more, and nothing needs to be done, since whoever "
                    "publishes next begins with what a sink lacks"
                )
        return rows

    def _take_turn(self, connection: Connection, sink: str) -> None:
        """Nobody else plans for the sink, or is done, until the transaction ends."""
        name = literal(f"tidegate {self._pipeline} {sink}")
        execute(connection, f"SELECT pg_advisory_xact_lock(hashtext({name}))")

    def _move_on(self, connection: Connection, publication: Publication) -> None:
        """Rows that were set back meanwhile stay there."""
        columns = self._table.c
        moved = {
            name: case((columns[name] == bindparam(f"was_{name}"), columns[f"next_{name}"]), else_=columns[name])
            for name in ("upto", "amended")
        }
        nothing = {f"next_{name}": None for name in ("upto", "amended", "closed", "promoted")}
        connection.execute(
            update(self._table)
            .where(*self._row_of(publication.sink), columns.next_upto.is_not(None))
            .values(**moved, closed=columns.next_closed, promoted=publication.promoted, **nothing),
            _bound(publication),
        )

    def _set_back(self, connection: Connection, publication: Publication) -> None:
        """What has closed stays so: none of its windows becomes less final. What was promoted is not found by its offsets, and
        which it was may be forgotten: then everything is given again."""
        columns, promotes = self._table.c, publication.promoted != publication.promoted_before
        least = {
            name: literal_column("-1") if promotes else func.least(columns[name], bindparam(f"was_{name}"))
            for name in ("upto", "amended")
        }
        connection.execute(
            update(self._table).where(*self._row_of(publication.sink)).values(**least), _bound(publication)
        )

    def _row_of(self, sink: str) -> tuple[ColumnElement[bool], ...]:
        """One row, of the partition that is bound."""
        columns = self._table.c
        at = columns.topic == bindparam("at_topic"), columns.partition == bindparam("at_partition")
        return columns.pipeline == self._pipeline, columns.sink == sink, *at

    def _rows(self, connection: Connection, sink: str) -> dict[TopicPartition, Any]:
        columns = self._table.c
        query = select(*columns).where(columns.pipeline == self._pipeline, columns.sink == sink)
        return {TopicPartition(row.topic, row.partition): row for row in connection.execute(query)}

    def _next(
        self,
        connection: Connection,
        sink: str,
        there: Mapping[TopicPartition, Any],
        states: Mapping[TopicPartition, PartitionState],
        shared: bool,
    ) -> Publication | None:
        """Write down a new plan, if there is anything to do."""
        amended = self._amended(connection)
        before = {tp: Position(row.upto, row.amended) for tp, row in there.items()}
        after = {tp: Position(state.upto, amended.get(tp, -1)) for tp, state in states.items()}
        before = {tp: before.get(tp, Position()) for tp in {*before, *after}}
        after = {**before, **after}
        closed_before = next((row.closed for row in there.values()), None)
        closed = self._closed(connection, closed_before, states)
        last = self._promotions.last(connection)
        promoted = next((row.promoted for row in there.values()), 0 if shared else last)
        if (before, closed_before) == (after, closed) and promoted >= last:
            return None
        version = 1 + max((row.version for row in there.values()), default=0)
        rows = [
            {"at_topic": tp.topic, "at_partition": tp.partition, "next_upto": at.upto, "next_amended": at.amended}
            for tp, at in after.items()
        ]  # fmt: skip
        new = [
            {"pipeline": self._pipeline, "sink": sink, "topic": tp.topic, "partition": tp.partition}
            | {"upto": -1, "amended": -1, "closed": closed_before, "version": version, "promoted": promoted}
            for tp in after
            if tp not in there
        ]
        self._promotions.hold_off(connection)
        if new:
            connection.execute(insert(self._table), new)
        connection.execute(
            update(self._table)
            .where(*self._row_of(sink))
            .values(version=version, next_closed=closed, next_promoted=max(promoted, last)),
            rows,
        )  # fmt: skip
        return Publication(sink, version, before, after, closed_before, closed, promoted, max(promoted, last))

    def _amended(self, connection: Connection) -> dict[TopicPartition, int]:
        columns = self._stored.amended.c
        query = select(columns.topic, columns.partition, columns.upto).where(columns.pipeline == self._pipeline)
        return {TopicPartition(row.topic, row.partition): row.upto for row in connection.execute(query)}

    def _closed(
        self, connection: Connection, before: int | None, states: Mapping[TopicPartition, PartitionState]
    ) -> int | None:
        """Up to where windows are final, as the view says it (watermark.py); what was final stays so."""
        bound = watermark_of(states_read(states, self._file), self._delay)
        if bound == EVERYTHING:
            ends = [changed.last_end(connection) for changed in self._changed.values()]
            bound = max((end for end in ends if end is not None), default=None)
        if bound is None or before is None:
            return before if bound is None else bound
        return max(before, bound)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection, connection.begin():
                yield connection
        except DRIVER_ERRORS as error:
            raise public_error(error, self._name) from error


def _bound(publication: Publication) -> list[dict[str, Any]]:
    """Each partition of a publication, and where it began."""
    return [
        {"at_topic": tp.topic, "at_partition": tp.partition, "was_upto": at.upto, "was_amended": at.amended}
        for tp, at in publication.before.items()
    ]
