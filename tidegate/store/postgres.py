"""The PostgreSQL store: COPY to a temporary table, one additive INSERT per aggregation, one transaction per batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, schema
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from tidegate.clock import Clock
from tidegate.config.sinks import PostgresSink
from tidegate.errors import ConfigError, StoreUnavailable
from tidegate.record import TopicPartition
from tidegate.stages.plan import Plan
from tidegate.stages.sql import literal, quote
from tidegate.store.base import PartitionRow
from tidegate.store.check import make_or_check
from tidegate.store.copying import as_instants, copy_in, copy_out
from tidegate.store.deltas import NEW
from tidegate.store.dialect import PostgresDialect
from tidegate.store.failures import at_the_start, driver_error
from tidegate.store.raw import execute, fetch
from tidegate.store.sql import NotNew, SqlStore
from tidegate.store.statements import Statements
from tidegate.store.tables import WINDOW, AggregationTables, qualified, store_tables
from tidegate.store.view import prepare_view

log = structlog.get_logger(__name__)
_CONNECT_TIMEOUT = 5  # seconds; an outage must reach the breaker long before the broker thinks this worker dead
_APPLICATION = "tidegate"
_OLDEST = 150_000  # the first version with UNIQUE NULLS NOT DISTINCT
_MANY_NEW = 1_000  # rows; for fewer a second COPY is not worth the way to the server


class PostgresStore(SqlStore):
    """Safe under threads: a pool of connections behind it."""

    sql = PostgresDialect()

    def __init__(self, plan: Plan, sink: PostgresSink, clock: Clock) -> None:
        tables = store_tables(plan, sink.tables, sink.schema_)
        engine = connect_server(sink.url.get_secret_value(), timeout=sink.timeout)
        super().__init__(plan, tables, engine, clock, f"sink {sink.name!r} (PostgreSQL)")
        self._schema = sink.schema_

    def prepare(self) -> None:
        """1. take turns with other workers 2. create or check each table 3. create or replace each view."""
        with at_the_start("sinks.url"), self._transaction() as connection:
            _check_version(connection)
            take_turn(connection, self._schema)
            make_or_check(connection, self._tables.metadata.sorted_tables)
            for aggregation in self._tables.aggregations.values():
                self._prepare_view(connection, aggregation)

    def claim(self, tps: Sequence[TopicPartition], owner: str) -> dict[TopicPartition, PartitionRow]:
        """As any store does; and a session that holds a partition's row without moving on is ended.

        A writer that was stopped while it sent rows (COPY) waits for itself in a place where no timeout of the server
        reaches it. Its partition is this owner's now: what it has begun is rolled back, and it is fenced when it wakes.
        """
        try:
            return super().claim(tps, owner)
        except StoreUnavailable as error:
            cause = error.__cause__
            if cause is None or not isinstance(driver_error(cause), psycopg.errors.LockNotAvailable):
                raise
        self._end_holders(tps)
        return super().claim(tps, owner)

    def _end_holders(self, tps: Sequence[TopicPartition]) -> None:
        """End tidegate's sessions whose transactions have changed these rows and are still open."""
        table, pipeline = qualified(self._tables.partitions), literal(self._plan.pipeline.pipeline_id)
        places = ", ".join(f"({literal(tp.topic)}, {tp.partition})" for tp in tps)
        with self._transaction() as connection:
            ended = fetch(
                connection,
                "SELECT a.pid, pg_terminate_backend(a.pid) "
                f"FROM {table} AS p JOIN pg_stat_activity AS a ON a.backend_xid = p.xmax "
                f"WHERE p.pipeline = {pipeline} AND (p.topic, p.partition) IN ({places}) "
                f"AND a.application_name = {literal(_APPLICATION)} AND a.pid <> pg_backend_pid()",
            )
        log.warning("store.holder_ended", partitions=[str(tp) for tp in tps], sessions=[pid for pid, _ in ended])

    def _prepare_view(self, connection: Connection, tables: AggregationTables) -> None:
        pipeline = self._plan.pipeline
        query = self._totals[tables.plan.name].view(self._tables, pipeline)
        way_out = f"give aggregation {tables.plan.name!r} another table: sinks.tables"
        prepare_view(connection, self._schema, tables.view, query, pipeline=pipeline.pipeline_id, way_out=way_out)

    def windows(
        self, tp: TopicPartition, aggregation: str, *, open_after: int | None, changed_after: int = -1
    ) -> Iterator[pa.Table]:
        tables = self._tables.aggregations[aggregation]
        query = self._totals[aggregation].windows(self._of_partition(tp, aggregation, open_after), changed_after)
        sketches = {f"{name}__sketch" for name in tables.sketches}
        with self._transaction(reads=True) as connection:
            yield from copy_out(connection, query, _window_schema(tables), sketches)

    def _stage(self, connection: Connection, name: str, table: pa.Table) -> None:
        copy_in(connection, quote(name), table)

    def _put_new(self, connection: Connection, statements: Statements, deltas: pa.Table) -> pa.Table:
        """By COPY into their place: 2.2 µs of the server's time a row, where staging and adding takes 4.4.

        Not with sketches, which are united over partitions.
        """
        new = deltas.column(NEW)
        count = pc.sum(new).as_py() or 0
        if count < _MANY_NEW or statements.tables.sketches:
            return deltas
        rows = deltas.filter(new).select(statements.staging.columns)
        rows = rows.append_column("revision", pa.repeat(pa.scalar(1, pa.int64()), count))
        try:
            copy_in(connection, statements.partials, self._instants(rows))
        except psycopg.errors.UniqueViolation as error:
            log.warning(
                "store.not_new", table=statements.tables.partials.name, rows=count, detail=error.diag.message_detail
            )
            raise NotNew from error
        return deltas.filter(pc.invert(new))

    def _create_staging(self, connection: Connection, statement: str) -> None:
        execute(connection, statement)

    def _unhurried(self, connection: Connection) -> None:
        execute(connection, "SET LOCAL statement_timeout = 0")

    def _instants(self, deltas: pa.Table) -> pa.Table:
        return as_instants(deltas)


def connect_server(url: str, *, timeout: int) -> Engine:
    """A pool that tests a connection before it lends it, and connections that cannot hold a partition for ever.

    `timeout` (ms): of a statement.
    """
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_timeout=timeout / 1000,
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT,
            "tcp_user_timeout": timeout,
            "application_name": _APPLICATION,
            "client_encoding": "utf8",
        },
    )
    settings = {
        "timezone": "UTC",
        "client_min_messages": "warning",
        "statement_timeout": str(timeout),
        # A worker that is stopped (SIGSTOP, a long pause) in the middle of a transaction holds the partition row. The
        # server ends that transaction in half of what the new owner's claim is given to wait.
        "idle_in_transaction_session_timeout": str(max(timeout // 2, 500)),
        # Later than that, and before the statement ends: then it is known that a lock was what it waited for.
        "lock_timeout": str(timeout * 3 // 4),
    }

    @event.listens_for(engine, "connect")
    def set_session(connection: psycopg.Connection[Any], _record: object) -> None:
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.commit()

    return engine


def take_turn(connection: Connection, name: str) -> None:
    """Be the only one that creates tables in this schema until the transaction ends; the schema is made if it is missing."""
    # Two workers that start together: CREATE … IF NOT EXISTS alone can still fail on the catalogue's own key.
    execute(connection, f"SELECT pg_advisory_xact_lock(hashtext({literal('tidegate ' + name)}))")
    if name not in inspect(connection).get_schema_names():
        connection.execute(schema.CreateSchema(name))


def _check_version(connection: Connection) -> None:
    version = cast("PGDialect_psycopg", connection.dialect).server_version_info
    if version is not None and version[0] * 10_000 < _OLDEST:
        raise ConfigError(
            "this PostgreSQL is too old",
            field="sinks.url",
            value=".".join(map(str, version)),
            expected="PostgreSQL 15 or newer (UNIQUE NULLS NOT DISTINCT)",
        )


def _window_schema(tables: AggregationTables) -> pa.Schema:
    """What `windows` gives: window (ms), group, partial columns, records, upto, revision."""
    plan = tables.plan
    return pa.schema(
        [
            *((name, pa.int64()) for name in WINDOW),
            *((column.name, column.type) for column in plan.group),
            *((partial.name, partial.type) for partial in plan.partials),
            *((name, pa.int64()) for name in ("records", "upto", "revision")),
        ]
    )
