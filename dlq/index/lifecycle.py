"""What people (and replays) do to groups and letters: acknowledge, resolve, park. Every act is in the history."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, select, update

from dlq.index.database import IndexDatabase
from dlq.index.filters import LetterFilter, condition
from dlq.index.tables import ACKNOWLEDGED, OPEN, PARKED, REPLACED, RESOLVED
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

    def close(
        self, connection: Connection, which: ColumnElement[bool], *, actor: str, state: str = RESOLVED, note: str = ""
    ) -> int:
        """Close the open letters among `which` (over the table `letters`) as resolved, parked or replaced. A group whose
        last open letter this closes is resolved. Returns how many were open. Part of the caller's transaction."""
        if state not in (RESOLVED, PARKED, REPLACED):
            raise ValueError(f"letters are closed as {RESOLVED}, {PARKED} or {REPLACED}, not as {state}")
        letters = self._tables.letters
        mine = which & (letters.c.state == OPEN)
        self._hold_all(connection, mine)
        statement = update(letters).where(mine).values(state=state, closed_at=self._now())
        counted = Counter(connection.execute(statement.returning(letters.c.fingerprint)).scalars())
        for name in sorted(counted):
            self._closed(connection, name, counted[name])
            detail = {"letters": counted[name]}
            self.record(connection, actor, f"{state} letters", fingerprint=name, note=note, detail=detail)
        return counted.total()

    def park(self, wanted: LetterFilter, *, actor: str, note: str = "") -> int:
        """Take open letters off the list of what is to be replayed. Returns how many."""
        with self._database.transaction() as connection:
            return self.close(connection, condition(wanted, self._database), actor=actor, state=PARKED, note=note)

    def unpark(self, wanted: LetterFilter, *, actor: str, note: str = "") -> int:
        """Open parked letters again; their replays count anew. Returns how many."""
        letters, groups = self._tables.letters, self._tables.groups
        mine = condition(wanted, self._database) & (letters.c.state == PARKED)
        with self._database.transaction() as connection:
            self._hold_all(connection, mine)
            statement = update(letters).where(mine).values(state=OPEN, closed_at=None, replays=0)
            counted = Counter(connection.execute(statement.returning(letters.c.fingerprint)).scalars())
            for name in sorted(counted):
                again = case((groups.c.state == RESOLVED, OPEN), else_=groups.c.state)
                changed = update(groups).where(groups.c.fingerprint == name)
                connection.execute(changed.values(open=groups.c.open + counted[name], state=again))
                detail = {"letters": counted[name]}
                self.record(connection, actor, "unparked letters", fingerprint=name, note=note, detail=detail)
        return counted.total()

    def note(
        self,
        actor: str,
        action: str,
        *,
        fingerprint: str | None = None,
        letter: tuple[str, str] | None = None,
        note: str = "",
        detail: Any = None,
    ) -> None:
        """An entry of the history of its own: an act that changes nothing in the index."""
        with self._database.transaction() as connection:
            self.record(connection, actor, action, fingerprint=fingerprint, letter=letter, note=note, detail=detail)

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

    def _hold_all(self, connection: Connection, which: ColumnElement[bool]) -> None:
        """The groups of these letters, before the letters, as everybody does."""
        for name in sorted(
            connection.execute(select(self._tables.letters.c.fingerprint).where(which).distinct()).scalars()
        ):
            self._hold(connection, name)

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
