"""What both SQL stores do: one transaction per batch, its order of locks, and how its failures are told apart."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
from sqlalchemy import Connection, Engine

from tidegate.clock import Clock
from tidegate.errors import SinkRecordError, StoreUnavailable
from tidegate.record import TopicPartition
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.store.answer_rows import AnswerRows
from tidegate.store.base import PartitionRow, StoreBatch
from tidegate.store.deltas import sourced_deltas
from tidegate.store.failures import Failure, driver_error, failure_of, public_error
from tidegate.store.holds import HoldRows
from tidegate.store.late import late_windows
from tidegate.store.raw import execute, fetch
from tidegate.store.refusal import refused_rows
from tidegate.store.seen import add_seen, forget_seen
from tidegate.store.sql_reading import DRIVER_ERRORS, SqlReading
from tidegate.store.statements import Statements, null_patterns
from tidegate.store.tables import StoreTables
from tidegate.store.united import Existing, numbered_keys, with_united_sketches


class SqlStore(SqlReading):
    """Results and offsets in one transaction.

    The order of locks, by which no two writers wait for each other in a ring:

    1. the partition rows, sorted, compared and set *first*: from then on this transaction is the only writer of these
       partitions, so the rows of their answers, partials and late windows need no order. A zombie waits here and then
       finds that it is fenced, before it has sent a row. (Set last, two writers of one partition would lock partials in
       two orders.)
    2. the estimates, which alone are shared between partitions: aggregation by aggregation in the plan's order, and
       within one sorted by key.
    """

    def __init__(self, plan: Plan, tables: StoreTables, engine: Engine, clock: Clock, name: str) -> None:
        super().__init__(plan, tables, engine, clock, name)
        self._answers = AnswerRows(tables.answers, plan.pipeline.pipeline_id)
        self._holds = HoldRows(tables.holds, plan.pipeline.pipeline_id, clock.time)
        self._statements = {
            aggregation: Statements(of, self.sql, engine.dialect) for aggregation, of in tables.aggregations.items()
        }
        self._epochs: dict[TopicPartition, int] = {}
        self._epochs_lock = threading.Lock()

    # What the databases do differently.

    @abstractmethod
    def prepare(self) -> None: ...

    @abstractmethod
    def _instants(self, deltas: pa.Table) -> pa.Table:
        """The window's bounds (ms) in the form in which they are staged."""

    # The contract.

    def expect(self, tps: Sequence[TopicPartition]) -> None:
        with self._transaction() as connection:
            self._rows.expect(connection, tps)

    def claim(self, tps: Sequence[TopicPartition], owner: str) -> dict[TopicPartition, PartitionRow]:
        with self._transaction(reads=True) as connection:
            self._holds.require_free(connection, owner)  # else it would wait for the rows of a holder that writes
        with self._transaction() as connection:
            rows = self._rows.claim(connection, tps, owner)
            # Again, with the rows locked: a hold that comes only now will claim them after us.
            self._holds.require_free(connection, owner)
            self._holds.forget_expired(connection)
            answers = self._answers.of(connection, rows)
        with self._epochs_lock:
            self._epochs.update({row.tp: row.epoch for row in rows})
        return {row.tp: replace(row, answers=answers.get(row.tp)) for row in rows}

    def hold(self, holder: str, duration: int) -> None:
        with self._transaction() as connection:
            self._holds.take(connection, holder, duration)

    def renew_hold(self, holder: str, duration: int) -> bool:
        with self._transaction() as connection:
            return self._holds.renew(connection, holder, duration)

    def held_by(self) -> str | None:
        with self._transaction(reads=True) as connection:
            hold = self._holds.alive(connection)
        return None if hold is None else hold.holder

    def release_hold(self, holder: str) -> None:
        with self._transaction() as connection:
            self._holds.release(connection, holder)

    def write(self, *batches: StoreBatch) -> None:
        """In one transaction: 1. compare and set the partition rows 2. keep the answers, add late windows 3. add deltas
        4. remember what dedupe has seen 5. commit.

        A deadlock or serialization failure is tried once more here, because the transaction as a whole was undone.
        """
        ordered = sorted(batches, key=lambda batch: batch.tp)
        for last_try in (False, True):
            try:
                with self._transaction(translate=False) as connection:
                    self._write(connection, ordered)
                return
            except DRIVER_ERRORS as error:
                failure = failure_of(error)
                if failure is Failure.REFUSED:
                    raise self._refused(ordered, error) from error
                if last_try or failure is not Failure.CONFLICT:
                    raise public_error(error, self._name) from error

    def set_idle(self, tps: Sequence[TopicPartition], idle: bool) -> None:
        with self._epochs_lock:
            epochs = {tp: self._epochs[tp] for tp in tps if tp in self._epochs}
        if epochs:
            with self._transaction() as connection:
                self._rows.set_idle(connection, epochs, idle)

    # How it is done.

    def _write(self, connection: Connection, batches: Sequence[StoreBatch]) -> None:
        pipeline = self._plan.pipeline.pipeline_id
        for batch in batches:
            self._rows.compare_and_set(connection, batch)
        for batch in batches:
            if batch.answers is not None:
                self._answers.put(connection, batch)
            if batch.late_windows is not None and batch.late_windows.num_rows:
                execute(connection, late_windows(self._tables, self.sql, pipeline, batch))
        for statements, deltas in self._deltas(batches):
            self._add(connection, statements, deltas)
        for batch in batches:
            self._remember(connection, batch)

    def _deltas(self, batches: Sequence[StoreBatch]) -> Iterator[tuple[Statements, pa.Table]]:
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

    def _refused(self, batches: Sequence[StoreBatch], cause: BaseException) -> SinkRecordError | StoreUnavailable:
        """Find the guilty rows, of the first partition that has some, in a transaction that is always undone."""
        try:
            with self._engine.connect() as connection:
                for batch in batches:
                    self._rows.compare_and_set(connection, batch)
                for batch in batches:
                    for statements, deltas in self._deltas([batch]):
                        guilty = refused_rows(deltas.num_rows, self._accepts(connection, statements, deltas))
                        if guilty:
                            return _refusal(statements.tables.plan, batch.tp, guilty, deltas.num_rows, cause)
        except DRIVER_ERRORS as error:
            raise public_error(error, self._name) from error
        return StoreUnavailable(f"{self._name} refuses this batch, but none of its rows alone: {driver_error(cause)}")

    def _accepts(self, connection: Connection, statements: Statements, deltas: pa.Table) -> Callable[[int, int], bool]:
        def accepts(start: int, stop: int) -> bool:
            savepoint = connection.begin_nested()
            try:
                self._add(connection, statements, deltas.slice(start, stop - start))
            except DRIVER_ERRORS as error:
                if failure_of(error) is not Failure.REFUSED:
                    raise
                return False
            finally:
                savepoint.rollback()
            return True

        return accepts


def _refusal(
    plan: AggregationPlan, tp: TopicPartition, guilty: tuple[int, ...], count: int, cause: BaseException
) -> SinkRecordError:
    shown = str(driver_error(cause)).splitlines()[0] if str(driver_error(cause)) else type(cause).__name__
    return SinkRecordError(
        f"aggregation {plan.name!r}: the database refuses {len(guilty)} of {count} rows: {shown}",
        aggregation=plan.name,
        tp=tp,
        rows=guilty,
    )
