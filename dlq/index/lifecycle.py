"""What people (and replays) do to groups and letters: acknowledge, resolve, park. Every act is in the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, case, select, update

from dlq.index.database import IndexDatabase
from dlq.index.tables import ACKNOWLEDGED, OPEN, PARKED, RESOLVED
from tidegate.clock import Clock, SystemClock
from tidegate.errors import ConfigError


class Lifecycle:
    """Each call is one transaction. Raises ConfigError for a group that does not exist, StoreUnavailable."""

    def __init__(self, database: IndexDatabase, clock: Clock | None = None) -> None:
        self._database, self._tables, self._clock = database, database.tables, clock or SystemClock()

    def acknowledge(self, fingerprint: str, *, actor: str, note: str = "") -> None:
        """Somebody is looking at it. A resolved group stays resolved."""
        groups = self._tables.groups
        with self._database.transaction() as connection:
            self._hold(connection, fingerprint)
            connection.execute(
                update(groups)
                .where(groups.c.fingerprint == fingerprint, groups.c.state == OPEN)
                .values(state=ACKNOWLEDGED, state_at=self._now(), note=note)
            )
            self.record(connection, actor, "acknowledge", fingerprint=fingerprint, note=note)

    def resolve(self, fingerprint: str, *, actor: str, note: str = "") -> int:
        """By hand: every open letter of the group is closed. A letter that comes later opens the group again.

        Returns how many letters were closed.
        """
        groups, letters = self._tables.groups, self._tables.letters
        with self._database.transaction() as connection:
            self._hold(connection, fingerprint)
            closed = connection.execute(
                update(letters)
                .where(letters.c.fingerprint == fingerprint, letters.c.state == OPEN)
                .values(state=RESOLVED, closed_at=self._now())
            ).rowcount
            connection.execute(
                update(groups)
                .where(groups.c.fingerprint == fingerprint)
                .values(state=RESOLVED, state_at=self._now(), note=note, open=0)
            )
            self.record(connection, actor, "resolve", fingerprint=fingerprint, note=note, detail={"letters": closed})
        return int(closed)

    def close_letters(
        self, letters: Sequence[tuple[str, str]], *, actor: str, state: str = RESOLVED, note: str = ""
    ) -> int:
        """Close open letters, given as (dead-letter topic, id), as resolved (accepted on a replay) or parked. A group
        whose last open letter this closes is resolved. Returns how many were open."""
        if state not in (RESOLVED, PARKED):
            raise ValueError(f"letters are closed as {RESOLVED} or {PARKED}, not as {state}")
        table = self._tables.letters
        with self._database.transaction() as connection:
            counted: Counter[str] = Counter()
            for topic in sorted({topic for topic, _ in letters}):
                ids = [id for at, id in letters if at == topic]
                mine = (table.c.dlq_topic == topic) & table.c.id.in_(ids) & (table.c.state == OPEN)
                names = select(table.c.fingerprint).where(mine).distinct()
                for name in sorted(connection.execute(names).scalars()):
                    self._hold(connection, name)  # before its letters, as everybody does
                statement = update(table).where(mine).values(state=state, closed_at=self._now())
                counted.update(connection.execute(statement.returning(table.c.fingerprint)).scalars())
            for name in sorted(counted):
                self._closed(connection, name, counted[name])
                self.record(
                    connection,
                    actor,
                    f"{state} letters",
                    fingerprint=name,
                    note=note,
                    detail={"letters": counted[name]},
                )
        return counted.total()

    def record(
        self,
        connection: Connection,
        actor: str,
        action: str,
        *,
        fingerprint: str | None = None,
        letter: tuple[str, str] | None = None,
        note: str = "",
        detail: Any = None,
    ) -> None:
        """An entry of the history. `letter`: dead-letter topic and id."""
        topic, id = letter or (None, None)
        connection.execute(
            self._tables.history.insert(),
            {
                "at": self._now(), "actor": actor, "action": action, "fingerprint": fingerprint, "dlq_topic": topic,
                "id": id, "note": note, "detail": detail,
            },
        )  # fmt: skip

    def _closed(self, connection: Connection, fingerprint: str, number: int) -> None:
        groups = self._tables.groups
        last = groups.c.open <= number
        connection.execute(
            update(groups)
            .where(groups.c.fingerprint == fingerprint)
            .values(
                open=groups.c.open - number,
                state=case((last, RESOLVED), else_=groups.c.state),
                state_at=case((last, self._now()), else_=groups.c.state_at),
            )
        )

    def _hold(self, connection: Connection, fingerprint: str) -> None:
        """Lock the group, so that a letter that is being indexed comes before or after this act."""
        groups = self._tables.groups
        mine = select(groups.c.fingerprint).where(groups.c.fingerprint == fingerprint).with_for_update()
        if connection.execute(mine).scalar() is None:
            raise ConfigError(
                "there is no group with this fingerprint",
                field="GROUP", value=fingerprint, expected="one that `tidegate dlq groups` shows",
            )  # fmt: skip

    def _now(self) -> int:
        return int(self._clock.time() * 1000)
