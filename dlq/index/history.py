"""The history, which is the audit log: who did what to which groups and letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, literal, select

from dlq.index.reading import Document, Reading

_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """All of what is given must hold. `group`: a fingerprint; `id`: of a letter; `note`: the whole of it, such as a job's
    id."""

    actor: str | None = None
    action: str | None = None
    group: str | None = None
    id: str | None = None
    note: str | None = None


class HistoryReader(Reading):
    """Entries, newest first."""

    def history(
        self, wanted: HistoryFilter | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[Document]:
        """Who did what, newest first. `before`: the entry with which the page before this one ended."""
        history = self._tables.history
        query = select(history).where(self._like(wanted or HistoryFilter())).order_by(history.c.entry.desc())
        query = query if before is None else query.where(history.c.entry < before)
        return self._fetch(query.limit(limit))

    def every_entry(self, wanted: HistoryFilter) -> Iterator[Document]:
        """All of them, a page at a time."""
        before: int | None = None
        while page := self.history(wanted, before=before, limit=_CHUNK):
            yield from page
            before = page[-1]["entry"]

    def _like(self, wanted: HistoryFilter) -> ColumnElement[bool]:
        history = self._tables.history.c
        asked = {
            history.actor: wanted.actor,
            history.action: wanted.action,
            history.fingerprint: wanted.group,
            history.id: wanted.id,
            history.note: wanted.note,
        }
        return and_(literal(True), *(column == value for column, value in asked.items() if value is not None))
