"""The rows that keep what was said of each partition's last batch; a later batch replaces them, and only the last counts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Table, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from tidegate.record import TopicPartition
from tidegate.store.base import PartitionRow, StoreBatch


class AnswerRows:
    """The rows of one pipeline in one table. A row whose `upto` is not its partition's `worker_upto` is of an earlier batch."""

    def __init__(self, table: Table, pipeline: str) -> None:
        self._table, self._pipeline = table, pipeline

    def put(self, connection: Connection, batch: StoreBatch) -> None:
        """Replace the partition's row. The caller holds the lock on the partition row, so nobody else writes this one."""
        columns = self._table.c
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        insert = dialect.insert(self._table).values(
            pipeline=self._pipeline,
            topic=batch.tp.topic,
            partition=batch.tp.partition,
            upto=batch.state.upto,
            answers=batch.answers,
        )
        key = [columns.pipeline, columns.topic, columns.partition]
        newest = {"upto": insert.excluded.upto, "answers": insert.excluded.answers}
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=newest))

    def of(self, connection: Connection, rows: Sequence[PartitionRow]) -> dict[TopicPartition, bytes]:
        """The answers of the last batch that a worker has written of each partition, where there are any."""
        columns = self._table.c
        wanted = [(row.tp.topic, row.tp.partition, row.worker_upto) for row in rows if row.worker_upto >= 0]
        if not wanted:
            return {}
        query = select(columns.topic, columns.partition, columns.answers).where(
            columns.pipeline == self._pipeline, tuple_(columns.topic, columns.partition, columns.upto).in_(wanted)
        )
        return {TopicPartition(row.topic, row.partition): row.answers for row in connection.execute(query)}
