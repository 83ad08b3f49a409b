"""What URLs and bodies may say: filters, pages, requests. The same models for pages and API; unknown names are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from dlq.index.filters import LetterFilter
from dlq.index.groups import GroupCursor, GroupOrder, GroupState
from dlq.index.history import HistoryFilter
from dlq.index.search import Cursor
from dlq.replay.names import JobState
from dlq.replay.request import MAX_FAILURES, Request
from dlq.service import SHORTEST_REASON
from tidegate.clock import Clock

Text = Annotated[str, StringConstraints(max_length=2_000, pattern=r"^[^\x00]*$")]  # PostgreSQL's text has no NUL
Note = Annotated[str, StringConstraints(max_length=2_000, pattern=r"^[^\x00]*$", strip_whitespace=True)]
Reason = Annotated[
    str, StringConstraints(min_length=SHORTEST_REASON, max_length=2_000, pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")
]
Content = Annotated[str, StringConstraints(max_length=1_048_576)]
Several = Annotated[list[Text], Field(max_length=100)]
JobId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,32}$")]
LetterState = Literal["open", "resolved", "parked", "replaced"]
Period = Literal["24h", "7d", "30d"]
Format = Literal["csv", "json"]
Limit = Annotated[int, Field(ge=1, le=500)]


class Query(BaseModel):
    """What is not named here is a mistake, and a filter that is misspelt would take everything."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Filter(Query):
    """Which dead letters. All parts must hold; of one part's values, any. Blank values count as absent."""

    group: Several = []
    topic: Several = []
    source: Several = []
    pipeline: Several = []
    stage: Several = []
    error: Several = []
    rule: Several = []
    state: list[LetterState | Literal[""]] = Field(default=[], max_length=10)
    key: Several = []
    id: Several = []
    field: Several = Field(default=[], examples=[["customer.country=NO"]])
    since: Text | None = Field(default=None, examples=["2 hours", "2026-01-31T12:00Z"])
    until: Text | None = None
    text: Text | None = Field(default=None, description="Words of the message, all of them.")

    def letters(self, clock: Clock) -> LetterFilter:
        """Raises ConfigError."""
        given = {name: getattr(self, name) for name in Filter.model_fields}
        listed = {name: value if isinstance(value, list) else [value or ""] for name, value in given.items()}
        return LetterFilter.from_params(listed, clock)

    def params(self) -> list[tuple[str, str]]:
        """As it stands in a URL, without what is blank."""
        params: list[tuple[str, str]] = []
        for name in Filter.model_fields:
            value = getattr(self, name)
            params += [(name, item) for item in (value if isinstance(value, list) else [value]) if item]
        return params


class LettersQuery(Filter):
    """A page of dead letters."""

    after: Text | None = None
    limit: Limit = 50

    def cursor(self) -> Cursor | None:
        return Cursor.parse(self.after) if self.after else None


class GroupsFilter(Query):
    """Which groups. Without a state: what is not resolved; `all` for every one."""

    state: list[GroupState | Literal["all", ""]] = Field(default=[], max_length=10)
    topic: Several = []
    source: Several = []
    pipeline: Several = []
    stage: Several = []
    error: Several = []
    rule: Several = []
    since: Text | None = None
    order: GroupOrder = "impact"

    def letters(self, clock: Clock) -> LetterFilter:
        """Raises ConfigError."""
        names = ("topic", "source", "pipeline", "stage", "error", "rule")
        return LetterFilter.from_params({n: getattr(self, n) for n in names} | {"since": [self.since or ""]}, clock)

    def states(self) -> tuple[str, ...]:
        given = tuple(state for state in self.state if state)
        return () if "all" in given else given or ("open", "acknowledged")

    def params(self) -> list[tuple[str, str]]:
        """As it stands in a URL, without the place of the page."""
        params = [
            (n, v) for n in ("state", "topic", "source", "pipeline", "stage", "error", "rule") for v in getattr(self, n)
        ]
        params += [("since", self.since or ""), ("order", "" if self.order == "impact" else self.order)]
        return [(name, value) for name, value in params if value]


class GroupsQuery(GroupsFilter):
    """A page of groups."""

    after: Text | None = None
    limit: Limit = 50

    def cursor(self) -> GroupCursor | None:
        return GroupCursor.parse(self.after, self.order) if self.after else None


class LetterQuery(Query):
    """One dead letter. `topic`: its dead-letter topic, where two have the same id."""

    id: Text
    topic: Text | None = None


class GroupQuery(Query):
    """One group, by its fingerprint."""

    group: Text


class JobsFilter(Query):
    """Which jobs."""

    state: list[JobState | Literal[""]] = Field(default=[], max_length=10)

    def states(self) -> tuple[str, ...]:
        return tuple(state for state in self.state if state)


class JobsQuery(JobsFilter):
    """A page of jobs."""

    before: JobId | None = None
    limit: Limit = 50


class ResultsFilter(Query):
    """Which of a job's letters."""

    outcome: Text | None = None


class ResultsQuery(ResultsFilter):
    """A page of what became of a job's letters."""

    after: int = Field(default=0, ge=0, lt=2**63)
    limit: Limit = 50


class AuditFilter(Query):
    """Which entries of the history. `job`: what was done with it."""

    actor: Text | None = None
    action: Text | None = None
    group: Text | None = None
    id: Text | None = None
    job: Text | None = None

    def entries(self) -> HistoryFilter:
        parts = (self.actor, self.action, self.group, self.id, self.job)
        return HistoryFilter(*(part or None for part in parts))

    def params(self) -> list[tuple[str, str]]:
        """As it stands in a URL, without the place of the page."""
        return [(name, value) for name in ("actor", "action", "group", "id", "job") if (value := getattr(self, name))]


class AuditQuery(AuditFilter):
    """A page of the history."""

    before: int | None = Field(default=None, ge=0, lt=2**63)
    limit: Limit = 50


class ReplayBody(Query):
    """A replay: which letters, to where, mended how, how fast, and when to stop. An empty filter: all open letters."""

    filter: Filter
    to: Text | None = None
    set: Several = Field(default=[], examples=[["value.distance = CASE WHEN distance > 0 THEN distance END"]])
    canary: bool = True
    rate: int | None = Field(default=None, ge=1, le=1_000_000, description="Letters a second.")
    max_failures: float = Field(default=MAX_FAILURES, ge=0, le=1)

    def request(self, clock: Clock) -> Request:
        """Raises ConfigError."""
        assignments = tuple(line for line in self.set if line.strip())
        return Request(
            self.filter.letters(clock), self.to or None, assignments, False, self.canary, self.rate, self.max_failures
        )


class GroupNote(Query):
    """An act on a group."""

    group: Text
    note: Note = ""


class LettersNote(Query):
    """An act on all letters that a filter takes."""

    filter: Filter
    note: Note = ""


class Reveal(Query):
    """The wish to see one letter unmasked. The reason goes into the audit log."""

    id: Text
    topic: Text | None = None
    reason: Reason


class EditBody(Query):
    """One letter, edited by hand. What is not given stays as it was; a field that holds its mask keeps what was in it."""

    id: Text
    topic: Text | None = None
    key: Content | None = None
    value: Content | None = None
    to: Text | None = None
