"""Groups of the index: pages of them by keyset, with their counters, facets and rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, tuple_

from dlq.index.filters import LetterFilter
from dlq.index.reading import Document, Reading
from dlq.index.tables import RATE_BUCKET
from tidegate.errors import ConfigError

_HOUR = 3_600_000

GroupState = Literal["open", "acknowledged", "resolved"]
GROUP_STATES: tuple[str, ...] = get_args(GroupState)
GroupOrder = Literal["impact", "newest", "oldest"]
_SORTED_BY: dict[str, tuple[str, ...]] = {
    "impact": ("open", "count"),
    "newest": ("last_seen",),
    "oldest": ("first_seen",),
}


@dataclass(frozen=True, slots=True)
class GroupCursor:
    """The last group of a page, by what it is sorted by and its fingerprint. As text, `12.430.ab12cd34ef56`."""

    sorted_by: tuple[int, ...]
    fingerprint: str

    @classmethod
    def parse(cls, written: str, order: GroupOrder) -> GroupCursor:
        """Raises ConfigError for something else than a page of this order gave."""
        size = len(_SORTED_BY[order])
        parts = written.split(".", size)
        try:
            if len(parts) == size + 1:
                numbers = tuple(int(part) for part in parts[:size])
                if all(abs(number) < 2**63 for number in numbers):
                    return cls(numbers, parts[size])
        except ValueError:
            pass
        raise ConfigError("not the place of a page", field="after", value=written, expected="what the last page gave")

    def __str__(self) -> str:
        return ".".join([*map(str, self.sorted_by), self.fingerprint])


@dataclass(frozen=True, slots=True)
class GroupPage:
    """`next`: where the following page begins; None at the end."""

    groups: list[Document]
    next: GroupCursor | None


class GroupReader(Reading):
    """Groups, and how fast they come."""

    def groups(
        self,
        wanted: LetterFilter | None = None,
        *,
        state: tuple[str, ...] = (),
        order: GroupOrder = "impact",
        limit: int = 50,
    ) -> list[Document]:
        """The first page."""
        return self.group_page(wanted, state=state, order=order, limit=limit).groups

    def group_page(
        self,
        wanted: LetterFilter | None = None,
        *,
        state: tuple[str, ...] = (),
        order: GroupOrder = "impact",
        after: GroupCursor | None = None,
        limit: int = 50,
    ) -> GroupPage:
        """Groups that have letters like `wanted` (its group, stage, error, rule, topic, source, pipeline).

        `order`: impact (most open letters), newest or oldest. With `rate` (letters in the last hour of the group);
        `facets` as facet → value → count.
        """
        groups = self._tables.groups
        query = select(groups).where(and_(literal(True), *self._of(wanted or LetterFilter())))
        query = query.where(groups.c.state.in_(state)) if state else query
        rows = self._fetch(_sorted(query, groups.c, order, after).limit(limit + 1))
        page = self._with_facets(rows[:limit])
        if len(rows) <= limit:
            return GroupPage(page, None)
        last = page[-1]
        return GroupPage(page, GroupCursor(tuple(last[name] for name in _SORTED_BY[order]), last["fingerprint"]))

    def rates(
        self, *fingerprints: str, since: int, bucket: int = RATE_BUCKET
    ) -> dict[str | None, list[tuple[int, int]]]:
        """(start in ms, letters) per `bucket` ms of each of these groups, or of all together (under None) when none is
        named; empty buckets are left out. `since` is the beginning of a bucket, from where they are counted."""
        rates = self._tables.rates.c
        start = rates.bucket - (rates.bucket - since) % bucket
        name: ColumnElement[Any] = rates.fingerprint if fingerprints else literal(None)
        query = select(name.label("name"), start.label("start"), func.sum(rates["count"]).label("number"))
        query = query.where(rates.bucket >= since)
        if fingerprints:
            query = query.where(rates.fingerprint.in_(fingerprints)).group_by(rates.fingerprint)
        found: dict[str | None, list[tuple[int, int]]] = {name: [] for name in fingerprints or (None,)}
        for row in self._fetch(query.group_by(start).order_by(start)):
            found[row["name"]].append((int(row["start"]), int(row["number"])))
        return found

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


def _sorted(query: Select[Any], groups: Any, order: GroupOrder, after: GroupCursor | None) -> Select[Any]:
    """The order, and what comes behind `after` in it. Equal ones go by their fingerprint."""
    columns = [groups[name] for name in _SORTED_BY[order]]
    falls = order != "oldest"
    if after is not None:
        whole, place = tuple_(*columns), tuple_(*(literal(number) for number in after.sorted_by))
        behind = whole < place if falls else whole > place
        query = query.where(or_(behind, and_(whole == place, groups.fingerprint > after.fingerprint)))
    return query.order_by(*(column.desc() if falls else column for column in columns), groups.fingerprint)
