"""Who holds a pipeline back: one row per pipeline, which ends by itself when its holder no longer renews it.

In a table of its own: a holder that is in the middle of a long write has the partition rows locked, and can still renew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    Table,
    case,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from tidegate.errors import StoreHeld
from tidegate.store.columns import TEXT

HOLDS: Final = "tidegate_holds"


@dataclass(frozen=True, slots=True)
class Hold:
    """`since` and `until` in ms since the epoch, by the database's clock."""

    holder: str
    since: int
    until: int

    def refusal(self) -> StoreHeld:
        """What whoever else wants the partitions is told."""
        return StoreHeld(self.holder, datetime.fromtimestamp(self.since / 1000, UTC))


def holds_table(metadata: MetaData) -> Table:
    """`since` and `until` in ms since the epoch, by the database's clock."""
    return Table(
        HOLDS,
        metadata,
        Column("pipeline", TEXT, primary_key=True),
        Column("holder", TEXT, nullable=False),
        Column("since", BigInteger, nullable=False),
        Column("until", BigInteger, nullable=False),
    )


class HoldRows:
    """The row of one pipeline. `clock`: seconds since the epoch, where the database has no clock of its own (SQLite)."""

    def __init__(self, table: Table, pipeline: str, clock: Callable[[], float]) -> None:
        self._table, self._pipeline, self._clock = table, pipeline, clock

    def take(self, connection: Connection, holder: str, duration: int) -> None:
        """Take the hold for `duration` ms, or renew it. Raises StoreHeld when somebody else has it."""
        columns, now = self._table.c, self._now(connection)
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        insert = dialect.insert(self._table).values(
            pipeline=self._pipeline, holder=holder, since=now, until=now + duration
        )
        taken = insert.on_conflict_do_update(
            index_elements=[columns.pipeline],
            set_={
                "holder": insert.excluded.holder,
                "since": case((columns.holder == holder, columns.since), else_=insert.excluded.since),
                "until": insert.excluded.until,
            },
            where=or_(columns.holder == holder, columns.until <= now),
        )
        connection.execute(taken)
        self.require_free(connection, holder)

    def renew(self, connection: Connection, holder: str, duration: int) -> bool:
        """Whether the holder still had it; expired or not, nobody else has taken a partition then."""
        columns = self._table.c
        mine = (columns.pipeline == self._pipeline, columns.holder == holder)
        renewed = connection.execute(update(self._table).where(*mine).values(until=self._now(connection) + duration))
        return renewed.rowcount == 1

    def release(self, connection: Connection, holder: str) -> None:
        columns = self._table.c
        connection.execute(delete(self._table).where(columns.pipeline == self._pipeline, columns.holder == holder))

    def require_free(self, connection: Connection, owner: str) -> None:
        """Raises StoreHeld when another than `owner` holds the pipeline."""
        hold = self.alive(connection)
        if hold is not None and hold.holder != owner:
            raise hold.refusal()

    def forget_expired(self, connection: Connection) -> None:
        """Its holder learns at its next renewal that it is over. (Not deleted: a worker needs no right to that.)"""
        columns = self._table.c
        expired = (columns.pipeline == self._pipeline, columns.until <= self._now(connection))
        connection.execute(update(self._table).where(*expired).values(holder=""))

    def alive(self, connection: Connection) -> Hold | None:
        """The hold, if there is one that has not expired."""
        columns = self._table.c
        query = select(columns.holder, columns.since, columns.until).where(
            columns.pipeline == self._pipeline, columns.until > self._now(connection)
        )
        row = connection.execute(query).one_or_none()
        return None if row is None else Hold(row.holder, row.since, row.until)

    def _now(self, connection: Connection) -> Any:
        """ms. The server's own clock, so that it does not matter how those of the machines differ."""
        if connection.dialect.name == "sqlite":
            return literal(int(self._clock() * 1000), BigInteger)
        return cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
