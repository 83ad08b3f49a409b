"""The partition rows: claimed, compared and set, read. The same statements for both databases, by SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, case, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from tidegate.clock import Clock
from tidegate.errors import StoreFenced
from tidegate.ledger import LEDGER_COLUMNS, Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.store.base import PartitionRow, StoreBatch


class PartitionRows:
    """The rows of one pipeline in one table."""

    def __init__(self, table: Table, pipeline: str, clock: Clock) -> None:
        self._table, self._pipeline, self._clock = table, pipeline, clock

    def expect(self, connection: Connection, tps: Sequence[TopicPartition], topic_ids: Mapping[str, str]) -> None:
        """Make the rows that are missing. One that is there is not touched: its writer may hold it for long.

        But for a row of a partition that these topics have no more, as one that was made anew with fewer: it becomes idle, or it
        would be waited for in vain. A row that nobody has claimed was made idle here, and is no more once the partition is back.
        """
        known = {row.tp: row for row in self.all(connection)}
        if missing := [tp for tp in tps if tp not in known]:
            fresh = self._insert(connection, missing, epoch=0, owner="", topic_ids=topic_ids)
            connection.execute(fresh.on_conflict_do_nothing())
        there, topics = set(tps), {tp.topic for tp in tps}
        back = [row for tp, row in known.items() if tp in there and row.state.idle and row.epoch == 0]
        others = [row for tp, row in known.items() if tp not in there and tp.topic in topics and not row.state.idle]
        gone = [row for row in others if _is_of_another(row, topic_ids.get(row.tp.topic, ""))]
        for rows, idle in ((back, False), (gone, True)):
            if rows:
                self.set_idle(connection, {row.tp: row.epoch for row in rows}, idle)

    def fence(self, connection: Connection, tps: Sequence[TopicPartition]) -> None:
        """Whoever has one of these has to claim it again. They are locked already."""
        columns = self._table.c
        places = tuple_(columns.topic, columns.partition).in_([(tp.topic, tp.partition) for tp in tps])
        fenced = update(self._table).where(columns.pipeline == self._pipeline, places).values(epoch=columns.epoch + 1)
        connection.execute(fenced)

    def claim(self, connection: Connection, tps: Sequence[TopicPartition], owner: str) -> list[PartitionRow]:
        """Each row's epoch grows by one. In the rows returned `owner` is the previous one ("" for a new row).

        In sorted order: two that claim the same partitions then wait for each other at most one way round.
        """
        if not tps:
            return []
        columns = self._table.c
        insert = self._insert(connection, tps, epoch=1, owner=owner)
        claim = insert.on_conflict_do_update(
            index_elements=[columns.pipeline, columns.topic, columns.partition],
            set_={
                "epoch": columns.epoch + 1,
                "previous_owner": columns.owner,
                "owner": insert.excluded.owner,
                "updated_at": insert.excluded.updated_at,
                # In a row of before the column was there it is not known: then all of it may have to be repeated.
                "worker_upto": case((columns.worker_upto == -2, columns.upto), else_=columns.worker_upto),
            },
        ).returning(*columns)
        return [_partition_row(row, row.previous_owner) for row in connection.execute(claim)]

    def _insert(
        self,
        connection: Connection,
        tps: Sequence[TopicPartition],
        *,
        epoch: int,
        owner: str,
        topic_ids: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """Fresh rows, in sorted order."""
        fresh = _columns_of(PartitionState())
        rows = [
            {"pipeline": self._pipeline, "topic": tp.topic, "partition": tp.partition, **fresh}
            | {"epoch": epoch, "owner": owner, "previous_owner": "", "updated_at": self._now(connection)}
            | {"worker_upto": -1, "topic_id": topic_ids.get(tp.topic, "")}
            for tp in sorted(set(tps))
        ]
        return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(self._table).values(rows)

    def compare_and_set(self, connection: Connection, batch: StoreBatch) -> None:
        """Move the row on if it is still what the batch started from; else raise StoreFenced with both sides' facts."""
        columns = self._table.c
        # Not where keys of before are missing.
        whole = or_(columns.seen_upto == batch.expected_upto, columns.read == 0)
        kept = case((whole, batch.state.upto), else_=columns.seen_upto)
        remembered = {"seen_upto": kept} if batch.seen is not None else {}
        repeatable = {} if batch.complete else {"worker_upto": batch.state.upto}
        moved = connection.execute(
            update(self._table)
            .where(self._is(batch.tp), columns.upto == batch.expected_upto, columns.epoch == batch.epoch)
            .values(**_columns_of(batch.state), **remembered, **repeatable, updated_at=self._now(connection))
        )
        if moved.rowcount == 1:
            return
        there = connection.execute(select(*columns).where(self._is(batch.tp))).one_or_none()
        mine = f"this writer started from upto {batch.expected_upto} with epoch {batch.epoch}"
        if there is None:
            raise StoreFenced(f"{batch.tp}: {mine}, but the store has no row for the partition: claim it first")
        raise StoreFenced(
            f"{batch.tp}: {mine}, but the store has upto {there.upto} and epoch {there.epoch}, owner {there.owner!r}"
        )

    def lock(self, connection: Connection) -> list[PartitionRow]:
        """All of them; nobody else writes to them until the end of the transaction. Locked as in claim()."""
        columns = self._table.c
        mine = columns.pipeline == self._pipeline
        connection.execute(select(columns.topic).where(mine).order_by(*self._table.primary_key).with_for_update())
        return self.all(connection)

    def all(self, connection: Connection) -> list[PartitionRow]:
        """By topic and partition."""
        columns = self._table.c
        query = select(*columns).where(columns.pipeline == self._pipeline).order_by(columns.topic, columns.partition)
        return [_partition_row(row, row.owner) for row in connection.execute(query)]

    def set_idle(self, connection: Connection, epochs: dict[TopicPartition, int], idle: bool) -> None:
        """Only rows that still have the epoch given: whoever lost a partition has no say in it."""
        columns = self._table.c
        claims = [(tp.topic, tp.partition, epoch) for tp, epoch in sorted(epochs.items())]
        mine = and_(
            columns.pipeline == self._pipeline,
            tuple_(columns.topic, columns.partition, columns.epoch).in_(claims),
            columns.idle != idle,
        )
        # Locked in the order of their keys, as in claim(): an UPDATE alone takes them in whatever order it finds them.
        connection.execute(select(columns.topic).where(mine).order_by(*self._table.primary_key).with_for_update())
        connection.execute(update(self._table).where(mine).values(idle=idle, updated_at=self._now(connection)))

    def _is(self, tp: TopicPartition) -> ColumnElement[bool]:
        columns = self._table.c
        return and_(columns.pipeline == self._pipeline, columns.topic == tp.topic, columns.partition == tp.partition)

    def _now(self, connection: Connection) -> datetime | int:
        """SQLite holds instants as microseconds since the epoch."""
        now = self._clock.time()
        return int(now * 1_000_000) if connection.dialect.name == "sqlite" else datetime.fromtimestamp(now, UTC)


def _is_of_another(row: PartitionRow, topic_id: str) -> bool:
    """Whether it may be a partition of an earlier topic with this name. Kafka takes no partition away: of one that the very same
    topic is said not to have, whoever was asked has not heard yet."""
    return not row.state.topic_id or (topic_id != "" and row.state.topic_id != topic_id)


def _columns_of(state: PartitionState) -> dict[str, Any]:
    own = {"upto": state.upto, "high_water": state.high_water, "dedupe_clock": state.dedupe_clock}
    carried = {"lines": state.lines or None, "replays": state.replays or None}
    return own | {"idle": state.idle, "topic_id": state.topic_id} | carried | asdict(state.ledger)


def _partition_row(row: Row[Any], owner: str) -> PartitionRow:
    ledger = Ledger(**{name: getattr(row, name) for name in LEDGER_COLUMNS})
    state = PartitionState(
        row.upto,
        row.high_water,
        row.dedupe_clock,
        ledger,
        bool(row.idle),
        row.topic_id,
        bytes(row.lines or b""),
        bytes(row.replays or b""),
    )
    tp = TopicPartition(row.topic, row.partition)
    return PartitionRow(tp, state, row.epoch, owner, seen_upto=row.seen_upto, worker_upto=row.worker_upto)
