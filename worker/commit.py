"""The commit. Whoever asks "can this lose a record?" reads this file.

A step (one batch of one partition) is committed in this order, and nothing is acknowledged before the last of it:

1. the store      results, late windows, the partition row, and what handlers and the sink said, in one database
                  transaction; compare-and-set on the row, so that a zombie or another engine is fenced
2. Kafka          changelog, results, dead letters and late records in one transaction of the partition's own producer;
                  a zombie is fenced by the producer epoch
3. local state    RocksDB, together with the changelog offset it stands for
4. the offset     acknowledged to Faust, whose group offset is for monitoring only

A crash between 1 and 2 leaves the store ahead, by that one batch: the next starts from what the store has. Its
`worker_upto` is read at the next start, the store skips what it has, and for Kafka the batch is repeated with the answers
that the store keeps of it (tidegate/store/answers.py). Handlers and sink are not asked again: they might say something else,
and the two would differ for ever. That they do not differ is checked before anything more is written.
A crash between 2 and 3 leaves the changelog ahead: it is restored. A crash after 3 repeats nothing: the partition starts
from `upto` in the state, whatever the group's offset says.

Where another engine has gone on in the store, the state is taken from there (worker/reload.py), after the batch of which
Kafka lacks a part: the other engine has written all that it had for Kafka before the store.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from tidegate.calls import Calls
from tidegate.errors import ConfigError
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import Answers, PartitionState
from tidegate.store.answers import decode_answers, encode_answers
from tidegate.store.base import PartitionRow, Store, StoreBatch, new_after
from tidegate.store.seen import seen_table
from worker.effects import Effects
from worker.producer import PartitionProducer
from worker.source import Step
from worker.statedb import PartitionDB

_WAY_OUT = (
    "start once with the pipeline file as it was before the last stop; if it was not changed, the state or the database "
    "was: take a new pipelineId and compute everything from the log again"
)


class StoreClaim:
    """This worker's hold on one partition in the store: the epoch, and the `upto` that the next write compares with."""

    def __init__(
        self, store: Store, guard: Guard, tp: TopicPartition, owner: str, in_thread: Calls, *, dedupes: bool = False
    ) -> None:
        self._dedupes = dedupes
        self._store, self._guard, self._tp, self._owner, self._in_thread = store, guard, tp, owner, in_thread
        self._row: PartitionRow | None = None

    @property
    def state(self) -> PartitionState:
        """What the store has of the partition."""
        return PartitionState() if self._row is None else self._row.state

    @property
    def upto(self) -> int:
        return self.state.upto

    @property
    def read(self) -> int:
        """How many records of the partition the store has accounted for."""
        return self.state.ledger.read

    @property
    def worker_upto(self) -> int:
        """The last offset that a worker has written there, whose topics and state may lack its last batch."""
        return -1 if self._row is None else self._row.worker_upto

    def is_ahead(self, upto: int) -> bool:
        """Whether another engine has gone on beyond `upto`, and beyond what workers have written."""
        return self.upto > max(upto, self.worker_upto)

    async def claim(self) -> None:
        """Take the partition. Raises StoreHeld while somebody holds the pipeline, DependencyError while the database is away."""
        rows = await self._guard.call_async(self._in_thread, lambda: self._store.claim([self._tp], self._owner))
        self._row = rows[self._tp]

    async def answers(self, upto: int, *, of_handlers: bool) -> Answers | None:
        """What was said of the batch that the store has and a state at `upto` lacks; None: it lacks none, or nobody was asked.

        `of_handlers`: whether the pipeline has handlers. Raises ConfigError when they would have to be asked again: the
        worker's last batch in the store is not all that is missing, or it keeps no answers of it.
        """
        row = self._row
        if row is None or row.worker_upto <= upto:
            return None
        kept = row.answers
        answers = None if kept is None else await self._in_thread(lambda: decode_answers(kept, self._tp))
        if of_handlers and (answers is None or not answers.covers(upto, row.worker_upto)):
            known = "none" if answers is None else f"those after offset {answers.after}"
            raise ConfigError(
                f"the database has {self._tp} up to offset {row.worker_upto}, the state up to {upto}, and of the handlers' "
                f"answers in between {known} are kept: asked again, they might answer differently",
                field="handlers",
                hint=_WAY_OUT,
            )
        return answers

    async def write(self, step: Step) -> None:
        """Step 1. Does nothing for a batch that the store already has.

        Raises StoreFenced, SinkRecordError, DependencyError, and ConfigError when a repeat did not give what the store has.
        """
        row, result = self._row, step.result
        if row is None or result is None or step.state.upto < row.state.upto:
            return
        if step.state.upto == row.state.upto:
            self._require_same(step.state, row.state)
            return
        self._require_same(result.before, row.state)
        answers = result.answers
        encoded = None if answers is None else await self._in_thread(lambda: encode_answers(answers))
        batch = StoreBatch(
            self._tp,
            row.epoch,
            row.state.upto,
            step.state,
            result.deltas,
            result.late_windows,
            encoded,
            self._seen(result.seen),
            new_after=new_after(row.state),
        )
        await self._guard.call_async(self._in_thread, lambda: self._store.write(batch))
        self._moved(row, step.state)

    async def begin(self, state: PartitionState) -> None:
        """Make it a fact of the store, too, that the partition begins after `state.upto`; does nothing when it has more."""
        row = self._row
        if row is not None and row.state.upto < state.upto:
            batch = StoreBatch(self._tp, row.epoch, row.state.upto, state, seen=self._seen([]))
            await self._guard.call_async(self._in_thread, lambda: self._store.write(batch))
            self._moved(row, state)

    def _seen(self, seen: list[tuple[bytes, int]]) -> pa.Table | None:
        return seen_table(seen) if self._dedupes else None

    def _moved(self, row: PartitionRow, state: PartitionState) -> None:
        self._row = PartitionRow(self._tp, state, row.epoch, self._owner, worker_upto=state.upto)

    def _require_same(self, ours: PartitionState, theirs: PartitionState) -> None:
        """Both have counted the same records the same way. (`upto` may differ where `startAt` has skipped some, and `replayed`
        where an older version has written one of the two.)"""
        compared = [(replace(s.ledger, replayed=0), s.high_water, s.dedupe_clock) for s in (ours, theirs)]
        if compared[0] != compared[1]:
            raise ConfigError(
                f"at offset {theirs.upto} of {self._tp} the state would not be what the database has",
                value=compared[0],
                expected=str(compared[1]),
                hint=_WAY_OUT,
            )

    async def set_idle(self, idle: bool) -> None:
        await self._guard.call_async(self._in_thread, lambda: self._store.set_idle([self._tp], idle))


async def commit(
    effects: Effects,
    *,
    changelog: tuple[str, int],
    producer: PartitionProducer,
    db: PartitionDB,
    in_thread: Calls,
) -> None:
    """Steps 2 and 3. Raises ProducerFenced, BrokerUnavailable (outcome unknown: open the partition again)."""
    rows = effects.changelog(*changelog)
    offsets = await producer.commit([rows, *effects.topics])
    if len(rows):  # a step of a reload may change no row: windows without late records, or results alone
        await in_thread(lambda: effects.apply(db, offsets[changelog]))
