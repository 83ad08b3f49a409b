"""What both SQL stores do: one transaction per batch, its order of locks, and how its failures are told apart."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import ClassVar, TypeVar

import pyarrow as pa
import sqlalchemy.exc
from sqlalchemy import Connection, Engine

from tidegate.clock import Clock
from tidegate.errors import SinkRecordError, StoreUnavailable
from tidegate.record import TopicPartition
from tidegate.stages.plan import Plan
from tidegate.stages.sql import literal
from tidegate.store.amending import fence_amended, late_accounts
from tidegate.store.answer_rows import AnswerRows
from tidegate.store.base import Amendment, LateAccount, PartitionRow, StoreBatch
from tidegate.store.deltas import sourced_deltas
from tidegate.store.dialect import SqlDialect
from tidegate.store.failures import Failure, driver_error, failure_of, public_error
from tidegate.store.late import LateCounts, LateWindow, add_late_windows, counted, read_account
from tidegate.store.partition_rows import PartitionRows
from tidegate.store.raw import execute, fetch
from tidegate.store.refusal import DRIVER_ERRORS, refusal, refused_rows, undone
from tidegate.store.seen import CREATE_STAGING, SEEN_SCHEMA, SEEN_STAGING, add_seen, find_seen, forget_seen
from tidegate.store.statements import Statements, null_patterns
from tidegate.store.tables import StoreTables, qualified
from tidegate.store.totals import Totals
from tidegate.store.united import Existing, numbered_keys, with_united_sketches

Part = TypeVar("Part", StoreBatch, Amendment)


class SqlStore(ABC):
    """Results and offsets in one transaction.

    The order of locks, by which no two writers wait for each other in a ring:

    1. the partition rows, sorted, compared and set *first*: from then on this transaction is the only writer of these
       partitions, so the rows of their answers, partials and late windows need no order. A zombie waits here and then
       finds that it is fenced, before it has sent a row. (Set last, two writers of one partition would lock partials in
       two orders.)
    2. the estimates, which alone are shared between partitions: aggregation by aggregation in the plan's order, and
       within one sorted by key.
    """

    sql: ClassVar[SqlDialect]

    def __init__(self, plan: Plan, tables: StoreTables, engine: Engine, clock: Clock, name: str) -> None:
        self._plan, self._tables, self._engine, self._name = plan, tables, engine, name
        self._rows = PartitionRows(tables.partitions, plan.pipeline.pipeline_id, clock)
        self._answers = AnswerRows(tables.answers, plan.pipeline.pipeline_id)
        self._statements = {
            aggregation: Statements(of, self.sql, engine.dialect) for aggregation, of in tables.aggregations.items()
        }
        self._totals = {aggregation: Totals(of, self.sql) for aggregation, of in tables.aggregations.items()}
        self._epochs: dict[TopicPartition, int] = {}
        self._epochs_lock = threading.Lock()

    # What the databases do differently.

    @abstractmethod
    def prepare(self) -> None: ...

    @abstractmethod
    def _stage(self, connection: Connection, name: str, table: pa.Table) -> None:
        """Bulk-load rows, their columns in the order of the staging table's, into that table, emptied before."""

    @abstractmethod
    def _create_staging(self, connection: Connection, statement: str) -> None: ...

    @abstractmethod
    def _instants(self, deltas: pa.Table) -> pa.Table:
        """The window's bounds (ms) in the form in which they are staged."""

    @abstractmethod
    def windows(self, tp: TopicPartition, aggregation: str, *, open_after: int) -> Iterable[pa.Table]: ...

    # The contract.

    def expect(self, tps: Sequence[TopicPartition]) -> None:
        with self._transaction() as connection:
            self._rows.expect(connection, tps)

    def claim(self, tps: Sequence[TopicPartition], owner: str) -> dict[TopicPartition, PartitionRow]:
        with self._transaction() as connection:
            rows = self._rows.claim(connection, tps, owner)
            answers = self._answers.of(connection, rows)
        with self._epochs_lock:
            self._epochs.update({row.tp: row.epoch for row in rows})
        return {row.tp: replace(row, answers=answers.get(row.tp)) for row in rows}

    def write(self, *batches: StoreBatch) -> None:
        """In one transaction: 1. compare and set the partition rows 2. keep the answers, add late windows 3. add deltas
        4. remember what dedupe has seen 5. commit.
        """
        self._at_once(batches, self._write)

    def late_accounts(self) -> list[LateAccount]:
        with self._transaction(reads=True) as connection:
            table = self._tables.amended  # the newest of those that are read
            if not self._engine.dialect.has_table(connection, table.name, schema=table.schema):
                return []
            rows = fetch(connection, read_account(self._tables, self.sql, self._plan.pipeline.pipeline_id))
        return late_accounts(rows)

    def amend(self, *amendments: Amendment) -> None:
        """In one transaction: 1. compare and set how far is amended 2. move late windows' counts 3. add deltas 4. commit."""
        self._at_once(amendments, self._amend)

    def seen(self, tp: TopicPartition, keys: Sequence[bytes]) -> list[int | None]:
        wanted = pa.table([pa.array(keys, pa.binary()), pa.nulls(len(keys), pa.int64())], names=SEEN_SCHEMA.names)
        with self._transaction() as connection:
            self._stage_seen(connection, wanted)
            rows = fetch(connection, find_seen(self._tables, self._plan.pipeline.pipeline_id, tp))
        found = {bytes(key): int(at) for key, at in rows}
        return [found.get(key) for key in keys]

    def partitions(self) -> list[PartitionRow]:
        with self._transaction(reads=True) as connection:
            table = self._tables.partitions
            if not self._engine.dialect.has_table(connection, table.name, schema=table.schema):
                return []
            return self._rows.all(connection)

    def set_idle(self, tps: Sequence[TopicPartition], idle: bool) -> None:
        with self._epochs_lock:
            epochs = {tp: self._epochs[tp] for tp in tps if tp in self._epochs}
        if epochs:
            with self._transaction() as connection:
                self._rows.set_idle(connection, epochs, idle)

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

    def _at_once(self, parts: Sequence[Part], write: Callable[[Connection, Sequence[Part]], None]) -> None:
        """A deadlock or serialization failure is tried once more here, because the transaction as a whole was undone."""
        ordered = sorted(parts, key=lambda part: part.tp)
        for last_try in (False, True):
            try:
                with self._transaction(translate=False) as connection:
                    write(connection, ordered)
                return
            except DRIVER_ERRORS as error:
                failure = failure_of(error)
                if failure is Failure.REFUSED:
                    raise self._refused(ordered, error) from error
                if last_try or failure is not Failure.CONFLICT:
                    raise public_error(error, self._name) from error

    def _write(self, connection: Connection, batches: Sequence[StoreBatch]) -> None:
        for batch in batches:
            self._fence(connection, batch)
        for batch in batches:
            if batch.answers is not None:
                self._answers.put(connection, batch)
            if batch.late_windows is not None and batch.late_windows.num_rows:
                self._count_late(connection, batch.tp, counted(batch.late_windows))
        for statements, deltas in self._deltas(batches):
            self._add(connection, statements, deltas)
        for batch in batches:
            self._remember(connection, batch)

    def _amend(self, connection: Connection, amendments: Sequence[Amendment]) -> None:
        moved = [self._fence(connection, amendment) for amendment in amendments]
        if not all(moved):
            return
        for amendment in amendments:
            if amendment.changes:
                self._count_late(connection, amendment.tp, amendment.changes)
        for statements, deltas in self._deltas(amendments):
            self._add(connection, statements, deltas)

    def _fence(self, connection: Connection, part: StoreBatch | Amendment) -> bool:
        """False when the part was written before. Raises StoreFenced when somebody else has been there."""
        if isinstance(part, StoreBatch):
            self._rows.compare_and_set(connection, part)
            return True
        return fence_amended(connection, self._tables, self._plan.pipeline.pipeline_id, part)

    def _count_late(self, connection: Connection, tp: TopicPartition, changes: Mapping[LateWindow, LateCounts]) -> None:
        pipeline = self._plan.pipeline.pipeline_id
        execute(connection, add_late_windows(self._tables, self.sql, pipeline, tp, changes))

    def _deltas(self, batches: Sequence[StoreBatch | Amendment]) -> Iterator[tuple[Statements, pa.Table]]:
        """What there is to add, in the plan's order."""
        for aggregation in self._plan.aggregations:
            deltas = sourced_deltas(batches, self._tables.aggregations[aggregation.name])
            if deltas is not None:
                yield self._statements[aggregation.name], deltas

    def _add(self, connection: Connection, statements: Statements, deltas: pa.Table) -> None:
        """Add deltas to the partials of their source partitions."""
        tables = statements.tables
        if tables.sketches:
            deltas = self._with_united_sketches(connection, statements, deltas)
        self._create_staging(connection, statements.staging.create)
        self._stage(connection, statements.staging.name, self._instants(deltas.select(statements.staging.columns)))
        execute(connection, statements.merge)
        if tables.sketches:
            execute(connection, statements.set_estimates())

    def _add_slice(
        self, connection: Connection, statements: Statements, deltas: pa.Table, start: int, stop: int
    ) -> None:
        self._add(connection, statements, deltas.slice(start, stop - start))

    def _with_united_sketches(self, connection: Connection, statements: Statements, deltas: pa.Table) -> pa.Table:
        """1. stage the keys 2. lock their estimates 3. read the sketches that are there 4. unite."""
        tables = statements.tables
        keys, number_of = numbered_keys(deltas, tables.keys)
        self._create_staging(connection, statements.key_staging.create)
        self._stage(connection, statements.key_staging.name, self._instants(keys))
        execute(connection, statements.lock_estimates())
        found = fetch(connection, statements.read_sketches(null_patterns(keys, tables.group)))
        existing = (Existing(row[0], row[1], row[2], row[3], tuple(row[4:])) for row in found)
        return with_united_sketches(deltas, tables.sketches, number_of, existing)

    def _remember(self, connection: Connection, batch: StoreBatch) -> None:
        """Dedupe's memory: what the batch adds, less what no record can be a duplicate of any more."""
        pipeline, dedupe = self._plan.pipeline.pipeline_id, self._plan.pipeline.dedupe
        if batch.seen is None or dedupe is None:
            return
        if batch.seen.num_rows:
            self._stage_seen(connection, batch.seen)
            execute(connection, add_seen(self._tables, pipeline, batch.tp))
        if batch.state.dedupe_clock is not None:
            before = batch.state.dedupe_clock - dedupe.horizon
            execute(connection, forget_seen(self._tables, pipeline, batch.tp, before))

    def _stage_seen(self, connection: Connection, seen: pa.Table) -> None:
        self._create_staging(connection, CREATE_STAGING[self._engine.dialect.name])
        self._stage(connection, SEEN_STAGING, seen)

    def _refused(
        self, batches: Sequence[StoreBatch | Amendment], cause: BaseException
    ) -> SinkRecordError | StoreUnavailable:
        """Find the guilty rows, of the first partition that has some, in a transaction that is always undone."""
        try:
            with self._engine.connect() as connection:
                for batch in batches:
                    self._fence(connection, batch)
                for batch in batches:
                    for statements, deltas in self._deltas([batch]):
                        add = partial(self._add_slice, connection, statements, deltas)
                        guilty = refused_rows(deltas.num_rows, undone(connection, add))
                        if guilty:
                            return refusal(statements.tables.plan, batch.tp, guilty, deltas.num_rows, cause)
        except DRIVER_ERRORS as error:
            raise public_error(error, self._name) from error
        return StoreUnavailable(f"{self._name} refuses this batch, but none of its rows alone: {driver_error(cause)}")

    def _of_partition(self, tp: TopicPartition, aggregation: str, after: int | None) -> str:
        """SQL: partials `t` of one source partition whose window ends after a time (ms; None: any).

        By the window's start, with which the unique index begins.
        """
        condition = f"t.topic = {literal(tp.topic)} AND t.partition = {tp.partition}"
        if after is None:
            return condition
        size = self._tables.aggregations[aggregation].plan.size
        return f"t.window_start > {self.sql.instant(str(after - size))} AND {condition}"
