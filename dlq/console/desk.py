"""What pages and API share: the index, who asks, and the documents that both show. The acts are the service's own
(dlq/service.py); nothing here decides anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Request

from dlq.console import queries as q
from dlq.console.rights import Principal
from dlq.document import moment
from dlq.export import entry_document, exported, group_document, job_document
from dlq.index.filters import LetterFilter
from dlq.index.history import HistoryFilter
from dlq.index.reading import Document
from dlq.index.search import Count
from dlq.index.tables import RATE_BUCKET
from dlq.service import AT_WORK, DeadLetterIndex
from tidegate.errors import ConfigError

Json = dict[str, Any]

_TOP = 8  # groups on the overview
_HOUR = 3_600_000
PERIODS = {"24h": (24 * _HOUR, _HOUR // 2), "7d": (168 * _HOUR, 4 * _HOUR), "30d": (720 * _HOUR, 24 * _HOUR)}
"""Period → its length and that of a bar, in ms."""


class NotFound(ConfigError):
    """What a URL names does not exist."""


class NoIndex(ConfigError):
    """No agent has made the index yet."""


@dataclass(slots=True)
class Desk:
    """One console's index. Safe under threads."""

    index: DeadLetterIndex
    _made: bool = False

    def require_index(self) -> None:
        """Raises NoIndex, StoreUnavailable."""
        if not self._made:
            if not self.index.database.exists():
                raise NoIndex(
                    "there is no index yet", hint="`tidegate dlq agent PIPELINE` makes it and keeps it up to date"
                )
            self._made = True

    @property
    def now(self) -> int:
        """Milliseconds."""
        return int(self.index.clock.time() * 1000)

    # What is there

    def overview(self, period: q.Period) -> Json:
        """Totals, bars, the groups with most open letters, what expires, and whether an agent is at work."""
        reader = self.index.reader
        found, topics = reader.stats(), reader.topics()
        seen = self.index.looked()
        return {
            "letters": found["letters"],
            "open": found["open"],
            "groups": found["groups"],
            "oldestOpen": moment(min(found["oldestOpen"].values(), default=-1)),
            "stages": found["stages"],
            "topics": [self._topic(name, found, topics) for name in sorted({*found["topics"], *topics})],
            "expiring": [
                {
                    "group": entry["fingerprint"], "topic": entry["dlq_topic"], "letters": entry["count"],
                    "at": moment(entry["at"]), "acknowledged": entry["seen"],
                }
                for entry in self.index.expiring()
            ],
            "top": self._with_bars([group_document(row) for row in reader.groups(state=_UNRESOLVED, limit=_TOP)], period),
            "rates": self.bars(period),
            "agent": {"seen": None if seen is None else moment(seen), "atWork": seen is not None and self.now - seen < AT_WORK},
            "jobs": self.index.jobs.counts(),
        }  # fmt: skip

    def bars(self, period: q.Period, group: str | None = None) -> list[Json]:
        """Letters per bar of the period, empty bars too, the oldest first."""
        return self._bars(period, *([] if group is None else [group]))[group]

    def groups(self, query: q.GroupsQuery, period: q.Period = "24h") -> Json:
        """A page of groups, each with its bars."""
        wanted = query.letters(self.index.clock)
        states = query.states()
        page = self.index.reader.group_page(
            wanted, state=states, order=query.order, after=query.cursor(), limit=query.limit
        )
        following = None if page.next is None else str(page.next)
        return {"next": following, "groups": self._with_bars([group_document(row) for row in page.groups], period)}

    def group(self, fingerprint: str) -> Json:
        """One group, with its newest letter and its history. Raises NotFound."""
        row = self.index.reader.group(fingerprint)
        if row is None:
            raise NotFound("there is no such group", field="group", value=fingerprint)
        history = self.index.reader.history(HistoryFilter(group=fingerprint))
        sample = None if row["sample"] is None else exported(row["sample"])
        return {**group_document(row), "sample": sample, "history": [entry_document(entry) for entry in history]}

    def letters(self, query: q.LettersQuery) -> Json:
        """A page of letters, and how many there are."""
        wanted = query.letters(self.index.clock)
        page = self.index.reader.page(wanted, after=query.cursor(), limit=query.limit)
        count = self.index.reader.count(wanted)
        following = None if page.next is None else str(page.next)
        documents = [exported(letter) for letter in page.letters]
        return {"count": count.number, "exact": count.exact, "next": following, "letters": documents}

    def count(self, wanted: LetterFilter, state: str) -> Count:
        """How many of them are in this state."""
        return self.index.reader.count(replace(wanted, state=(state,)))

    def row(self, query: q.LetterQuery | q.Reveal) -> Document:
        """One letter as the index has it. Raises NotFound."""
        row = self.index.reader.letter(query.id, query.topic)
        if row is None:
            raise NotFound("there is no dead letter with this id", field="id", value=query.id)
        return row

    def letter(self, query: q.LetterQuery) -> Json:
        """One letter, what else is known of it, the replays it was in, and its history. Raises NotFound."""
        return self.index.describe(self.row(query))

    def jobs(self, query: q.JobsQuery) -> Json:
        """A page of jobs."""
        if query.before is not None:
            self.require_job(query.before)
        found = self.index.jobs.newest(query.limit + 1, state=query.states(), before=query.before)
        page = found[: query.limit]
        documents = [job_document(job, self.index.jobs.outcomes(job.id)) for job in page]
        return {"next": page[-1].id if len(found) > query.limit else None, "jobs": documents}

    def job(self, id: str) -> Json:
        """One job, with its history. Raises NotFound."""
        self.require_job(id)
        history = self.index.reader.history(HistoryFilter(note=id))
        document = job_document(self.index.jobs.get(id), self.index.jobs.outcomes(id))
        return {**document, "history": [entry_document(entry) for entry in history]}

    def results(self, id: str, query: q.ResultsQuery) -> Json:
        """A page of what became of a job's letters. Raises NotFound."""
        self.require_job(id)
        rows = self.index.jobs.results(id, outcome=query.outcome or None, after=query.after, limit=query.limit + 1)
        page = rows[: query.limit]
        return {"next": page[-1]["position"] if len(rows) > query.limit else None, "results": page}

    def audit(self, query: q.AuditQuery) -> Json:
        """A page of the history."""
        rows = self.index.reader.history(query.entries(), before=query.before, limit=query.limit + 1)
        page = rows[: query.limit]
        following = page[-1]["entry"] if len(rows) > query.limit else None
        return {"next": following, "entries": [entry_document(row) for row in page]}

    def every_result(self, id: str, outcome: str | None) -> Iterator[Json]:
        """All of a job's letters. Raises NotFound."""
        self.require_job(id)
        after = 0
        while rows := self.index.jobs.results(id, outcome=outcome, after=after, limit=1_000):
            yield from rows
            after = rows[-1]["position"]

    def require_group(self, fingerprint: str) -> None:
        """Raises NotFound."""
        if self.index.reader.group(fingerprint) is None:
            raise NotFound("there is no such group", field="group", value=fingerprint)

    def require_job(self, id: str) -> None:
        try:
            self.index.jobs.get(id)
        except ConfigError:
            raise NotFound("there is no such job", field="job", value=id) from None

    def _topic(self, name: str, found: Document, topics: dict[str, Document]) -> Json:
        row = topics.get(name)
        return {
            "topic": name,
            "letters": found["topics"].get(name, 0),
            "oldestOpen": moment(found["oldestOpen"].get(name, -1)),
            "retentionMs": None if row is None else row["retention_ms"],
            "looked": None if row is None else moment(row["checked_at"]),
        }

    def _with_bars(self, groups: list[Json], period: q.Period) -> list[Json]:
        found = self._bars(period, *(group["group"] for group in groups)) if groups else {}
        return [{**group, "rates": found[group["group"]]} for group in groups]

    def _bars(self, period: q.Period, *groups: str) -> dict[str | None, list[Json]]:
        length, bar = PERIODS[period]
        end = self.now // RATE_BUCKET * RATE_BUCKET + RATE_BUCKET
        starts = range(end - length, end, bar)
        found: dict[str | None, list[Json]] = {}
        for name, numbers in self.index.reader.rates(*groups, since=starts[0], bucket=bar).items():
            counts = dict(numbers)
            found[name] = [{"at": moment(start), "letters": counts.get(start, 0)} for start in starts]
        return found


_UNRESOLVED = ("open", "acknowledged")


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    desk.require_index()
    return desk


def _who(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


TheDesk = Annotated[Desk, Depends(_desk)]
"""For routes that need an index."""
Who = Annotated[Principal, Depends(_who)]
