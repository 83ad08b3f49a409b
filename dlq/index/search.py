"""Reading the index: pages of letters by keyset, groups with their counters, one letter, what expires, totals.

A page is found by where the one before it ended (`Cursor`), never by counting rows; how many there are of a group is
read from its counters. So a page of a million costs what a page of a hundred costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, tuple_

from dlq.index.database import IndexDatabase
from dlq.index.filters import LetterFilter, condition
from dlq.index.tables import OPEN, RATE_BUCKET, RESOLVED
from tidegate.errors import ConfigError

MOST_COUNTED = 100_000
"""A count beyond it is given as "more than"."""

_CHUNK = 1_000
_REACH = 20_000  # letters among which a page is first looked for: about 30 ms in the worst case
_HOUR = 3_600_000

Document = dict[str, Any]
"""A row by column name."""


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


class IndexReader:
    """Safe under threads; each call is one reading transaction. Raises StoreUnavailable."""

    def __init__(self, database: IndexDatabase) -> None:
        self._database, self._tables = database, database.tables

    # Letters

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
            query = select(func.coalesce(func.sum(groups["count"]), 0))
            query = query.where(groups.fingerprint.in_(wanted.group)) if wanted.group else query
            return Count(int(self._scalar(query)))
        some = select(literal(1)).select_from(self._tables.letters).where(condition(wanted, self._database))
        number = int(self._scalar(select(func.count()).select_from(some.limit(MOST_COUNTED + 1).subquery())))
        return Count(min(number, MOST_COUNTED), number <= MOST_COUNTED)

    # Groups

    def groups(
        self, wanted: LetterFilter | None = None, *, state: tuple[str, ...] = (), order: str = "impact", limit: int = 50
    ) -> list[Document]:
        """Groups that have letters like `wanted` (its group, stage, error, rule, topic, source, pipeline).

        `order`: impact (most open letters), newest or oldest. With `rate` (letters in the last hour of the group) and
        `per_bucket`; `facets` as facet → value → count.
        """
        groups = self._tables.groups
        query = select(groups).where(and_(literal(True), *self._of(wanted or LetterFilter())))
        query = query.where(groups.c.state.in_(state)) if state else query
        orders = {
            "impact": (groups.c.open.desc(), groups.c["count"].desc()),
            "newest": (groups.c.last_seen.desc(),),
            "oldest": (groups.c.first_seen,),
        }
        rows = self._fetch(query.order_by(*orders[order], groups.c.fingerprint).limit(limit))
        return self._with_facets(rows)

    def group(self, fingerprint: str) -> Document | None:
        """One group, with its facets, its rate and its sample letter."""
        groups = self._tables.groups
        rows = self._with_facets(self._fetch(select(groups).where(groups.c.fingerprint == fingerprint)))
        if not rows:
            return None
        return {**rows[0], "sample": self.letter(rows[0]["sample_id"], rows[0]["sample_topic"])}

    def rates(self, fingerprint: str | None = None, *, since: int, bucket: int = RATE_BUCKET) -> list[tuple[int, int]]:
        """(start in ms, letters) per `bucket` ms, of one group or of all; empty buckets are left out."""
        rates = self._tables.rates.c
        start = rates.bucket - rates.bucket % bucket
        query = select(start, func.sum(rates["count"])).where(rates.bucket >= since).group_by(start).order_by(start)
        query = query if fingerprint is None else query.where(rates.fingerprint == fingerprint)
        with self._database.transaction(reads=True) as connection:
            return [(int(at), int(number)) for at, number in connection.execute(query)]

    def history(self, fingerprint: str | None = None, *, limit: int = 100) -> list[Document]:
        """Who did what, newest first."""
        history = self._tables.history
        query = select(history).order_by(history.c.entry.desc()).limit(limit)
        return self._fetch(query if fingerprint is None else query.where(history.c.fingerprint == fingerprint))

    # All

    def stats(self) -> Document:
        """Totals, from counters: letters, open, groups by state, by stage, by topic; the oldest open letter's failure."""
        groups, facets, letters = self._tables.groups.c, self._tables.facets.c, self._tables.letters.c
        total = [func.coalesce(func.sum(groups[name]), 0) for name in ("count", "open")]
        with self._database.transaction(reads=True) as connection:
            count, opened = connection.execute(select(*total)).one()
            states = connection.execute(select(groups.state, func.count()).group_by(groups.state)).all()
            stages = connection.execute(select(groups.stage, *total).group_by(groups.stage)).all()
            topics = connection.execute(
                select(facets.value, func.sum(facets["count"])).where(facets.facet == "topic").group_by(facets.value)
            ).all()
            oldest = [
                connection.execute(
                    select(func.min(letters.dlq_timestamp)).where(letters.dlq_topic == topic, letters.state == OPEN)
                ).scalar()
                for topic, _ in topics
            ]
        return {
            "letters": int(count),
            "open": int(opened),
            "groups": {state: int(number) for state, number in states},
            "stages": {stage: {"letters": int(all_), "open": int(still)} for stage, all_, still in stages},
            "topics": {topic: int(number) for topic, number in topics},
            "oldestOpen": {topic: at for (topic, _), at in zip(topics, oldest, strict=True) if at is not None},
        }

    def expiring(self, before: int, *, within: int) -> list[Document]:
        """Open letters that retention deletes within `within` ms of `before`: fingerprint, dlq_topic, count, at.

        `at`: when the first of them goes (ms; in the past: it may be gone). Letters of acknowledged groups count, too:
        somebody has seen them, nobody has saved them. `seen` tells the two apart.
        """
        letters, groups = self._tables.letters.c, self._tables.groups.c
        found: list[Document] = []
        with self._database.transaction(reads=True) as connection:
            topics = self._tables.topics.c
            kept = connection.execute(select(topics.topic, topics.retention_ms).where(topics.retention_ms.is_not(None)))
            for topic, retention in kept.all():
                query = (
                    select(letters.fingerprint, func.count(), func.min(letters.dlq_timestamp), groups.state)
                    .join_from(self._tables.letters, self._tables.groups, groups.fingerprint == letters.fingerprint)
                    .where(letters.dlq_topic == topic, letters.state == OPEN)
                    .where(letters.dlq_timestamp < before + within - retention)
                    .group_by(letters.fingerprint, groups.state)
                )
                found += [
                    {
                        "fingerprint": name,
                        "dlq_topic": topic,
                        "count": count,
                        "at": at + retention,
                        "seen": state != OPEN,
                    }
                    for name, count, at, state in connection.execute(query)
                ]
        return sorted(found, key=lambda entry: (entry["at"], entry["fingerprint"]))

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

    def _of(self, wanted: LetterFilter) -> list[ColumnElement[bool]]:
        groups, facets = self._tables.groups.c, self._tables.facets.c
        parts: list[ColumnElement[bool]] = []
        if wanted.group:
            parts.append(groups.fingerprint.in_(wanted.group))
        if wanted.stage:
            parts.append(groups.stage.in_(wanted.stage))
        if wanted.error:
            errors = [error.lower() for error in wanted.error]
            parts.append(or_(func.lower(groups.error_type).in_(errors), groups.fingerprint.in_(errors)))
        if wanted.since is not None:
            parts.append(groups.last_seen >= wanted.since)
        for facet in ("topic", "source", "pipeline", "rule"):
            if values := getattr(wanted, facet):
                having = (facets.facet == facet) & facets.value.in_(values)
                parts.append(groups.fingerprint.in_(select(facets.fingerprint).where(having)))
        return parts

    def _with_facets(self, rows: list[Document]) -> list[Document]:
        """Facets, and letters in the hour before the group's last one, which is its rate while it lasts."""
        names = [row["fingerprint"] for row in rows]
        facets, rates = self._tables.facets, self._tables.rates
        found: dict[str, dict[str, dict[str, int]]] = {name: {} for name in names}
        for row in self._fetch(
            select(facets).where(facets.c.fingerprint.in_(names)).order_by(facets.c["count"].desc())
        ):
            found[row["fingerprint"]].setdefault(row["facet"], {})[row["value"]] = row["count"]
        last = {row["fingerprint"]: row["last_seen"] for row in rows}
        hour: dict[str, int] = dict.fromkeys(names, 0)
        oldest = min(last.values(), default=0) - _HOUR
        for row in self._fetch(select(rates).where(rates.c.fingerprint.in_(names), rates.c.bucket > oldest)):
            if row["bucket"] > last[row["fingerprint"]] - _HOUR:
                hour[row["fingerprint"]] += row["count"]
        return [{**row, "facets": found[row["fingerprint"]], "rate": hour[row["fingerprint"]]} for row in rows]

    def _fetch(self, query: Select[Any]) -> list[Document]:
        with self._database.transaction(reads=True) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _scalar(self, query: Select[Any]) -> Any:
        with self._database.transaction(reads=True) as connection:
            return connection.execute(query).scalar_one()


__all__ = ["MOST_COUNTED", "RESOLVED", "Count", "Cursor", "Document", "IndexReader", "Page"]
