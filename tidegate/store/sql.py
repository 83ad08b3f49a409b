"""What both SQL stores do: one transaction per batch, its order of locks, and how its failures are told apart."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pyarrow as pa
from sqlalchemy import Connection, Engine

from tidegate.clock import Clock
from tidegate.errors import SinkRecordError, StoreFenced, StoreUnavailable
from tidegate.record import TopicPartition
from tidegate.stages.plan import Plan
from tidegate.stages.windows import NEVER
from tidegate.store.amending import fence_amended
from tidegate.store.answer_rows import AnswerRows
from tidegate.store.base import Amendment, PartitionRow, StoreBatch, TimedOut
from tidegate.store.deltas import sourced_deltas
from tidegate.store.failures import Failure, driver_error, failure_of, public_error
from tidegate.store.holds import HoldRows
from tidegate.store.late import LateCounts, LateWindow, add_late_windows, counted
from tidegate.store.raw import execute, fetch
from tidegate.store.refusal import DRIVER_ERRORS, refusal, refused_rows, undone
from tidegate.store.seen import add_seen, forget_seen
from tidegate.store.sql_reading import SqlReading
from tidegate.store.statements import Statements, null_patterns
from tidegate.store.tables import StoreTables
from tidegate.store.timeouts import TimeoutRows, added_up, expired_of, given_up, surviving, timed_out_upto
from tidegate.store.united import Existing, numbered_keys, with_united_sketches
from tidegate.store.watermark import states_read


class NotNew(Exception):
    """A row that was to be new is in the store; nothing is written."""


Part = TypeVar("Part", StoreBatch, Amendment)


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
        self._timeouts = TimeoutRows(tables, self.sql, plan.pipeline.pipeline_id)
        self._gone = NEVER  # windows that end by then have timed out; it moves only while nobody else has a claim
        self._epochs: dict[TopicPartition, int] = {}
        self._epochs_lock = threading.Lock()

    # What the databases do differently.

    @abstractmethod
    def prepare(self) -> None: ...

    def _unhurried(self, connection: Connection) -> None:
        """A statement over many windows may take longer than one of a batch. (SQLite's take as long as they take.)"""

    @abstractmethod
    def _instants(self, deltas: pa.Table) -> pa.Table:
        """The window's bounds (ms) in the form in which they are staged."""

    # The contract.

    def expect(self, tps: Sequence[TopicPartition], topic_ids: Mapping[str, str]) -> None:
        with self._transaction() as connection:
            self._rows.expect(connection, tps, topic_ids)

    def claim(self, tps: Sequence[TopicPartition], owner: str) -> dict[TopicPartition, PartitionRow]:
        with self._transaction(reads=True) as connection:
            self._holds.require_free(connection, owner)  # else it would wait for the rows of a holder that writes
        with self._transaction() as connection:
            rows = self._rows.claim(connection, tps, owner)
            # Again, with the rows locked: a hold that comes only now will claim them after us.
            self._holds.require_free(connection, owner)
            self._holds.forget_expired(connection)
            answers = self._answers.of(connection, rows)
            self._gone = self._timeouts.upto(connection)
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
        """
        try:
            self._at_once(batches, partial(self._write, put_new=True))
        except NotNew:
            self._at_once(batches, partial(self._write, put_new=False))

    def amend(self, *amendments: Amendment) -> None:
        """In one transaction: 1. compare and set how far is amended 2. move late windows' counts 3. add deltas 4. commit."""
        self._at_once(amendments, self._amend)

    def set_idle(self, tps: Sequence[TopicPartition], idle: bool) -> None:
        with self._epochs_lock:
            epochs = {tp: self._epochs[tp] for tp in tps if tp in self._epochs}
        if epochs:
            with self._transaction() as connection:
                self._rows.set_idle(connection, epochs, idle)

    def time_out(self, epochs: Mapping[TopicPartition, int], timeout: int) -> TimedOut | None:
        """1. lock the partition rows, and see that they are the caller's  2. where is the watermark?  3. delete."""
        file = self._plan.pipeline
        with self._transaction() as connection:
            self._unhurried(connection)
            rows = {row.tp: row for row in self._rows.lock(connection)}
            for tp, epoch in epochs.items():
                if (row := rows.get(tp)) is None or row.epoch != epoch:
                    owner = "nobody" if row is None else row.owner
                    raise StoreFenced(f"{tp}: {owner} has the partition: no windows are timed out")
            others = {tp: row for tp, row in rows.items() if tp not in epochs}
            if any(file.reads(tp.topic) and not row.state.idle for tp, row in others.items()):
                return None  # somebody else may write to them
            states = states_read({tp: row.state for tp, row in rows.items()}, file)
            upto = timed_out_upto(states, file.event_time.delay if file.event_time else 0, timeout)
            if upto is None or upto <= self._timeouts.upto(connection):
                return None
            # Nobody waits for these. Should somebody write to one all the same, he has to learn of it first.
            self._rows.fence(connection, list(others))
            done = self._timeouts.move(connection, upto)
        self._gone = done.upto
        return done

    # How it is done.

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

    def _write(self, connection: Connection, batches: Sequence[StoreBatch], *, put_new: bool) -> None:
        for batch in batches:
            self._fence(connection, batch)
        expired = {} if self._gone == NEVER else expired_of(self._deltas(batches), self._gone)
        for batch in batches:
            if batch.answers is not None:
                self._answers.put(connection, batch)
            late = {} if batch.late_windows is None else given_up(counted(batch.late_windows), self._gone)
            if changes := added_up(late, expired.get(batch.tp, {})):
                self._count_late(connection, batch.tp, changes)
        for statements, deltas in self._deltas(batches):
            there = surviving(deltas, self._gone)
            self._add(connection, statements, self._put_new(connection, statements, there) if put_new else there)
        for batch in batches:
            self._remember(connection, batch)

    def _amend(self, connection: Connection, amendments: Sequence[Amendment]) -> None:
        moved = [self._fence(connection, amendment) for amendment in amendments]
        if not all(moved):
            return
        gone = self._timeouts.locked_upto(connection)
        for amendment in amendments:
            # What the others miss was given up when they went.
            if changes := {window: counts for window, counts in amendment.changes.items() if window.end > gone}:
                self._count_late(connection, amendment.tp, changes)
        for statements, deltas in self._deltas(amendments):
            self._add(connection, statements, surviving(deltas, gone))

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

    def _put_new(self, connection: Connection, statements: Statements, deltas: pa.Table) -> pa.Table:
        """Write the rows that are surely new where the database has a shorter way for them; returns those that are left.

        Raises NotNew if one was there all the same.
        """
        return deltas

    def _add(self, connection: Connection, statements: Statements, deltas: pa.Table) -> None:
        """Add deltas, if there are any, to the partials of their source partitions."""
        tables = statements.tables
        if not deltas.num_rows:
            return
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
