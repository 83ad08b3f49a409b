"""Reading the index: pages of letters by keyset, one letter, one group, how many; groups, history and totals beside it.

A page is found by where the one before it ended (`Cursor`), never by counting rows; how many there are of a group is
read from its counters. So a page of a million costs what a page of a hundred costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, literal, select, tuple_

from dlq.index.filters import LetterFilter, condition
from dlq.index.groups import GroupReader
from dlq.index.history import HistoryReader
from dlq.index.reading import Document
from dlq.index.totals import TotalsReader
from tidegate.errors import ConfigError

MOST_COUNTED = 10_000
"""A count beyond it is given as "more than": counting ten times as many takes longer than all else of a page."""

_CHUNK = 1_000
_REACH = 20_000  # letters among which a page is first looked for: about 30 ms in the worst case


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last letter of a page: the next page begins after it. As text, `1700000000000-17`."""

    last_failed: int
    letter: int

    @classmethod
    def parse(cls, written: str) -> Cursor:
        failed, dash, letter = written.rpartition("-")
        try:
            if dash:
                return cls(int(failed), int(letter))
        except ValueError:
            pass
        raise ConfigError("not the place of a page", field="after", value=written, expected="what the last page gave")

    def __str__(self) -> str:
        return f"{self.last_failed}-{self.letter}"


@dataclass(frozen=True, slots=True)
class Page:
    """`next`: where the following page begins; None at the end."""

    letters: list[Document]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class Count:
    """How many; `exact` is False for more than MOST_COUNTED, and then `number` is that."""

    number: int
    exact: bool = True


class IndexReader(GroupReader, HistoryReader, TotalsReader):
    """Safe under threads; each call is one reading transaction. Raises StoreUnavailable."""

    def page(self, wanted: LetterFilter, *, after: Cursor | None = None, limit: int = 50) -> Page:
        """The newest letters first."""
        rows = self._newest(wanted, after, limit + 1)
        letters = rows[:limit]
        last = letters[-1] if len(rows) > limit else None
        return Page(letters, None if last is None else Cursor(last["last_failed"], last["letter"]))

    def every(self, wanted: LetterFilter) -> Iterator[Document]:
        """All of them, newest first, a page at a time: what is chosen may be a million."""
        after: Cursor | None = None
        while True:
            page = self.page(wanted, after=after, limit=_CHUNK)
            yield from page.letters
            after = page.next
            if after is None:
                return

    def letter(self, id: str, topic: str | None = None) -> Document | None:
        """One letter by its id; the newest where two dead-letter topics have the same."""
        wanted = LetterFilter(id=(id,), topic=() if topic is None else (topic,))
        return next(iter(self.page(wanted, limit=1).letters), None)

    def count(self, wanted: LetterFilter) -> Count:
        """From the groups' counters where they know it; else counted, up to MOST_COUNTED."""
        groups = self._tables.groups.c
        if wanted.only_groups:
            query = select(func.coalesce(func.sum(groups["open" if wanted.state else "count"]), 0))
            query = query.where(groups.fingerprint.in_(wanted.group)) if wanted.group else query
            return Count(int(self._scalar(query)))
        some = select(literal(1)).select_from(self._tables.letters).where(condition(wanted, self._database))
        number = int(self._scalar(select(func.count()).select_from(some.limit(MOST_COUNTED + 1).subquery())))
        return Count(min(number, MOST_COUNTED), number <= MOST_COUNTED)

    def group(self, fingerprint: str) -> Document | None:
        """One group, with its facets, its rate and its sample letter."""
        groups = self._tables.groups
        rows = self._with_facets(self._fetch(select(groups).where(groups.c.fingerprint == fingerprint)))
        if not rows:
            return None
        return {**rows[0], "sample": self.letter(rows[0]["sample_id"], rows[0]["sample_topic"])}

    def _newest(self, wanted: LetterFilter, after: Cursor | None, number: int) -> list[Document]:
        """What is frequent is found among the newest; what is rare, by its own index and then sorted. PostgreSQL, left
        alone, expects to meet anything soon on its way back in time, and looks at a million letters for what is not there.
        """
        if not self._database.is_postgres or wanted == LetterFilter(group=wanted.group):
            return self._fetch(self._listed(wanted, after).limit(number))
        letters = self._tables.letters
        reach = self._listed(LetterFilter(), after).with_only_columns(letters.c.last_failed).offset(_REACH).limit(1)
        near = self._listed(wanted, after).where(letters.c.last_failed >= reach.scalar_subquery())
        rows = self._fetch(near.limit(number))
        if len(rows) == number:
            return rows
        order = ((letters.c.last_failed + 0).desc(), letters.c.letter.desc())  # an order that no index has
        return self._fetch(self._listed(wanted, after).order_by(None).order_by(*order).limit(number))

    def _listed(self, wanted: LetterFilter, after: Cursor | None) -> Select[Any]:
        letters = self._tables.letters
        query = select(letters).where(condition(wanted, self._database))
        if after is not None:
            query = query.where(tuple_(letters.c.last_failed, letters.c.letter) < (after.last_failed, after.letter))
        return query.order_by(letters.c.last_failed.desc(), letters.c.letter.desc())


__all__ = ["MOST_COUNTED", "Count", "Cursor", "Document", "IndexReader", "Page"]
