"""What both SQL stores are asked, and the transactions in which they answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

import pyarrow as pa
import sqlalchemy.exc
from sqlalchemy import Connection, Engine

from tidegate.clock import Clock
from tidegate.errors import StoreUnavailable
from tidegate.record import TopicPartition
from tidegate.stages.batch import LATE_WINDOWS_SCHEMA
from tidegate.stages.plan import Plan
from tidegate.stages.sql import literal
from tidegate.store.amending import late_accounts
from tidegate.store.base import LateAccount, PartitionRow
from tidegate.store.dialect import SqlDialect
from tidegate.store.failures import public_error
from tidegate.store.late import late_windows_of, read_account
from tidegate.store.partition_rows import PartitionRows
from tidegate.store.raw import fetch
from tidegate.store.refusal import DRIVER_ERRORS
from tidegate.store.seen import CREATE_STAGING, SEEN_SCHEMA, SEEN_STAGING, find_seen, seen_after
from tidegate.store.tables import StoreTables, qualified
from tidegate.store.totals import Totals


class SqlReading(ABC):
    """The reading half of a store (base.py)."""

    sql: ClassVar[SqlDialect]

    def __init__(self, plan: Plan, tables: StoreTables, engine: Engine, clock: Clock, name: str) -> None:
        self._plan, self._tables, self._engine, self._name = plan, tables, engine, name
        self._rows = PartitionRows(tables.partitions, plan.pipeline.pipeline_id, clock)
        self._totals = {aggregation: Totals(of, self.sql) for aggregation, of in tables.aggregations.items()}

    # What the databases do differently.

    @abstractmethod
    def _stage(self, connection: Connection, name: str, table: pa.Table) -> None:
        """Bulk-load rows, their columns in the order of the staging table's, into that table, emptied before."""

    @abstractmethod
    def _create_staging(self, connection: Connection, statement: str) -> None: ...

    @abstractmethod
    def windows(
        self, tp: TopicPartition, aggregation: str, *, open_after: int | None, changed_after: int = -1
    ) -> Iterable[pa.Table]: ...

    # The contract.

    def seen(self, tp: TopicPartition, keys: Sequence[bytes]) -> list[int | None]:
        wanted = pa.table([pa.array(keys, pa.binary()), pa.nulls(len(keys), pa.int64())], names=SEEN_SCHEMA.names)
        with self._transaction() as connection:
            self._stage_seen(connection, wanted)
            rows = fetch(connection, find_seen(self._tables, self._plan.pipeline.pipeline_id, tp))
        found = {bytes(key): int(at) for key, at in rows}
        return [found.get(key) for key in keys]

    def late(self, tp: TopicPartition) -> pa.Table:
        with self._transaction(reads=True) as connection:
            rows = fetch(connection, late_windows_of(self._tables, self.sql, self._plan.pipeline.pipeline_id, tp))
        columns: list[list[object]] = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
        return pa.table(columns, schema=LATE_WINDOWS_SCHEMA)

    def remembered(self, tp: TopicPartition) -> Iterator[pa.Table]:
        after = b""
        while True:
            with self._transaction(reads=True) as connection:
                rows = fetch(connection, seen_after(self._tables, self.sql, self._plan.pipeline.pipeline_id, tp, after))
            if not rows:
                return
            keys, times = zip(*rows, strict=True)
            yield pa.table([pa.array([bytes(key) for key in keys]), pa.array(times)], schema=SEEN_SCHEMA)
            after = bytes(keys[-1])

    def late_accounts(self) -> list[LateAccount]:
        with self._transaction(reads=True) as connection:
            table = self._tables.timeouts  # the newest of those that are read
            if not self._engine.dialect.has_table(connection, table.name, schema=table.schema):
                return []
            rows = fetch(connection, read_account(self._tables, self.sql, self._plan.pipeline.pipeline_id))
        return late_accounts(rows)

    def partitions(self) -> list[PartitionRow]:
        with self._transaction(reads=True) as connection:
            table = self._tables.partitions
            if not self._engine.dialect.has_table(connection, table.name, schema=table.schema):
                return []
            return self._rows.all(connection)

    def open_windows(self, watermarks: Mapping[TopicPartition, int | None]) -> dict[TopicPartition, int]:
        counts = dict.fromkeys(watermarks, 0)
        with self._transaction(reads=True) as connection:
            for name, tables in self._tables.aggregations.items():
                if not self._engine.dialect.has_table(connection, tables.partials.name, schema=tables.partials.schema):
                    continue
                for tp, watermark in watermarks.items():
                    where = self._of_partition(tp, name, watermark)
                    query = (
                        f"SELECT count(DISTINCT t.window_start) FROM {qualified(tables.partials)} AS t WHERE {where}"
                    )
                    counts[tp] += int(fetch(connection, query)[0][0])
        return counts

    def close(self) -> None:
        self._engine.dispose()

    # How it is done.

    @contextmanager
    def _transaction(self, *, reads: bool = False, translate: bool = True) -> Iterator[Connection]:
        """Commits at the end; driver errors become the contract's, unless the caller sorts them out."""
        try:
            with self._engine.connect().execution_options(reads=reads) as connection, connection.begin():
                yield connection
        except DRIVER_ERRORS as error:
            if translate:
                raise public_error(error, self._name) from error
            raise
        except sqlalchemy.exc.TimeoutError as error:
            raise StoreUnavailable(f"{self._name}: no connection became free: {error}") from error

    def _stage_seen(self, connection: Connection, seen: pa.Table) -> None:
        self._create_staging(connection, CREATE_STAGING[self._engine.dialect.name])
        self._stage(connection, SEEN_STAGING, seen)

    def _of_partition(self, tp: TopicPartition, aggregation: str, after: int | None) -> str:
        """SQL: partials `t` of one source partition whose window ends after a time (ms; None: any).

        By the window's start, with which the unique index begins.
        """
        condition = f"t.topic = {literal(tp.topic)} AND t.partition = {tp.partition}"
        if after is None:
            return condition
        size = self._tables.aggregations[aggregation].plan.size
        return f"t.window_start > {self.sql.instant(str(after - size))} AND {condition}"
