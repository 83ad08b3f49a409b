"""This run's hold on the source partitions in the store: their epochs, and the states that the next write starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from batch.written import Written
from tidegate.errors import ConfigError, StoreFenced
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import Plan
from tidegate.store.base import BEFORE_ALL, PartitionRow, Store, StoreBatch
from tidegate.store.identity import of_topic


class Claims:
    """Not for use by two threads at once. `owner` must be of this run alone. `topic_ids`: topic → id, "" if not known."""

    def __init__(self, plan: Plan, store: Store, guard: Guard, owner: str, topic_ids: Mapping[str, str]) -> None:
        self._store, self._guard, self._owner, self._topic_ids = store, guard, owner, topic_ids
        self._pipeline_id, self._dedupes = plan.pipeline.pipeline_id, plan.pipeline.dedupe is not None
        self._rows: dict[TopicPartition, PartitionRow] = {}
        self._written = Written({a.name: [column.name for column in a.group] for a in plan.aggregations})

    @property
    def states(self) -> Mapping[TopicPartition, PartitionState]:
        """What the store has, of the partitions that are claimed."""
        return {tp: row.state for tp, row in self._rows.items()}

    @property
    def epochs(self) -> Mapping[TopicPartition, int]:
        """Of the partitions that are claimed."""
        return {tp: row.epoch for tp, row in self._rows.items()}

    def claim(self, tps: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Take the partitions that are not claimed yet. Returns those that nobody has had before.

        Raises DependencyError; TopicRecreated; ConfigError when dedupe's memory is not in the database.
        """
        wanted = [tp for tp in tps if tp not in self._rows]
        if not wanted:
            return []
        rows = self._guard.call(self._store.claim, wanted, self._owner)
        for row in rows.values():
            self._require_memory(row)
        self._take(rows)
        return [tp for tp, row in rows.items() if not row.owner]

    def begin_after(self, tp: TopicPartition, offset: int) -> None:
        """Make "start at the end of the log" a fact of the state, so that a restart does not move it."""
        self.write([self.batch(tp, replace(self._rows[tp].state, upto=offset))])

    def set_idle(self, tps: Sequence[TopicPartition]) -> None:
        """Say that these are idle, until a batch is written to them. Raises DependencyError."""
        self._guard.call(self._store.set_idle, tps, True)
        for tp in tps:
            self._rows[tp] = replace(self._rows[tp], state=replace(self._rows[tp].state, idle=True))

    def renew(self) -> None:
        """Learn what the store has after a write whose outcome is not known. Raises StoreFenced if another was there."""
        rows = self._guard.call(self._store.claim, list(self._rows), self._owner)
        for row in rows.values():
            if row.owner != self._owner:
                raise StoreFenced(f"{row.tp}: {row.owner} has taken the partition (epoch {row.epoch - 1})")
        self._take(rows)

    def write(self, batches: Sequence[StoreBatch]) -> None:
        """All of them or none. Raises StoreFenced, SinkRecordError, DependencyError."""
        if not batches:
            return
        try:
            self._guard.call(self._store.write, *batches)
        except StoreFenced:
            # A write whose answer was lost may have been tried again: then it was this run that moved the rows on.
            if not self._are_written(batches):
                raise
        for batch in batches:
            self._rows[batch.tp] = PartitionRow(batch.tp, batch.state, batch.epoch, self._owner)
        self._written.settle(self.states)

    def batch(
        self,
        tp: TopicPartition,
        state: PartitionState,
        *,
        deltas: Mapping[str, pa.Table] | None = None,
        **parts: object,
    ) -> StoreBatch:
        """A batch that starts from what the store has."""
        row, deltas = self._rows[tp], deltas or {}
        there = {name: self._written.perhaps_there(tp, name, table) for name, table in deltas.items()}
        return StoreBatch(
            tp, row.epoch, row.state.upto, state, deltas, complete=True, new_after=BEFORE_ALL, perhaps_there=there,
            **parts,  # type: ignore[arg-type]  # fields of StoreBatch
        )  # fmt: skip

    def close(self) -> None:
        """Nothing is written any more; what the store has stays known."""
        self._written.close()

    def _are_written(self, batches: Sequence[StoreBatch]) -> bool:
        found = {row.tp: row for row in self._guard.call(self._store.partitions)}
        return all(
            (row := found.get(batch.tp)) is not None and (row.epoch, row.state) == (batch.epoch, batch.state)
            for batch in batches
        )

    def _take(self, rows: Mapping[TopicPartition, PartitionRow]) -> None:
        self._rows |= self._of_topics(rows)
        for tp, row in rows.items():
            self._written.begin(tp, row.state)

    def _of_topics(self, rows: Mapping[TopicPartition, PartitionRow]) -> dict[TopicPartition, PartitionRow]:
        """The rows, their states marked with the topics' ids. Raises TopicRecreated when one is of another topic."""
        ids, name = self._topic_ids, self._pipeline_id
        return {
            tp: replace(row, state=of_topic(row.state, tp, ids.get(tp.topic, ""), "the database", name))
            for tp, row in rows.items()
        }

    def _require_memory(self, row: PartitionRow) -> None:
        if self._dedupes and row.state.ledger.read and row.seen_upto != row.state.upto:
            raise ConfigError(
                f"{row.tp} was read up to offset {row.state.upto}, and the database has not all keys of it: before there was "
                "`dedupe` in the file, or by an older version of the worker. Duplicates would be counted again",
                field="dedupe",
                hint="go on with the worker, or take a new pipelineId and let `tidegate batch run` compute it from the log",
            )
