"""The commit. Whoever asks "can this lose a record?" reads this file.

A step (one batch of one partition) is committed in this order, and nothing is acknowledged before the last of it:

1. the store      results, late windows and the partition row in one database transaction; compare-and-set on the row,
                  so that a zombie or another engine is fenced
2. Kafka          changelog, results, dead letters and late records in one transaction of the partition's own producer;
                  a zombie is fenced by the producer epoch
3. local state    RocksDB, together with the changelog offset it stands for
4. the offset     acknowledged to Faust, whose group offset is for monitoring only

A crash between 1 and 2 leaves the store ahead: its `upto` is read at the next start and the store skips what it has.
A crash between 2 and 3 leaves the changelog ahead: it is restored. A crash after 3 repeats nothing: the partition starts
from `upto` in the state, whatever the group's offset says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.store.base import PartitionRow, Store, StoreBatch
from worker.effects import Effects
from worker.producer import PartitionProducer
from worker.source import Step
from worker.statedb import PartitionDB

T = TypeVar("T")


class StoreClaim:
    """This worker's hold on one partition in the store: the epoch, and the `upto` that the next write compares with."""

    def __init__(self, store: Store, guard: Guard, tp: TopicPartition, owner: str, executor: Executor) -> None:
        self._store, self._guard, self._tp, self._owner, self._executor = store, guard, tp, owner, executor
        self._row: PartitionRow | None = None

    @property
    def upto(self) -> int:
        return -1 if self._row is None else self._row.state.upto

    @property
    def read(self) -> int:
        """How many records of the partition the store has accounted for."""
        return 0 if self._row is None else self._row.state.ledger.read

    async def claim(self) -> None:
        """Take the partition. Raises DependencyError while the database is away."""
        rows = await self._guard.call_async(self._in_thread, lambda: self._store.claim([self._tp], self._owner))
        self._row = rows[self._tp]

    async def write(self, step: Step) -> None:
        """Step 1. Does nothing for a batch that the store already has.

        Raises StoreFenced, SinkRecordError, DependencyError.
        """
        row, result = self._row, step.result
        if row is None or result is None or step.state.upto <= row.state.upto:
            return
        batch = StoreBatch(self._tp, row.epoch, row.state.upto, step.state, result.deltas, result.late_windows)
        await self._guard.call_async(self._in_thread, lambda: self._store.write(batch))
        self._row = PartitionRow(self._tp, step.state, row.epoch, self._owner)

    async def set_idle(self, idle: bool) -> None:
        await self._guard.call_async(self._in_thread, lambda: self._store.set_idle([self._tp], idle))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


async def commit(
    effects: Effects,
    *,
    changelog: tuple[str, int],
    producer: PartitionProducer,
    db: PartitionDB,
    executor: Executor,
) -> None:
    """Steps 2 and 3. Raises ProducerFenced, BrokerUnavailable (outcome unknown: open the partition again)."""
    offsets = await producer.commit([effects.changelog(*changelog), *effects.topics])
    await asyncio.get_running_loop().run_in_executor(executor, effects.apply, db, offsets[changelog])
