"""What the API answers, for its OpenAPI document. The answers themselves are made in dlq/export.py and dlq/console/desk.py."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Shape(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Problem(Shape):
    """What is wrong, where, and the way out."""

    error: str
    field: str | None = None
    value: str | None = None
    expected: str | None = None
    hint: str | None = None


class Bar(Shape):
    at: str
    letters: int


class Entry(Shape):
    """An entry of the audit log."""

    entry: int
    at: str | None
    actor: str
    action: str
    group: str | None
    topic: str | None
    id: str | None
    note: str
    detail: Any


class Group(Shape):
    """A kind of failure. The facets topic, source, version, pipeline and rule are value → letters."""

    group: str
    state: str
    note: str
    reopened: int
    count: int
    open: int
    per_hour: int
    stage: str
    error_type: str
    message: str
    first_seen: str | None
    last_seen: str | None
    sample: str
    topic: dict[str, int] = {}
    source: dict[str, int] = {}
    version: dict[str, int] = {}
    pipeline: dict[str, int] = {}
    rule: dict[str, int] = {}


class GroupWithBars(Group):
    rates: list[Bar]


class GroupPage(Shape):
    """`next`: give it as `after`; null at the end."""

    groups: list[GroupWithBars]
    next: str | None


class Letter(Shape):
    """A dead letter, masked."""

    id: str
    state: str
    group: str
    dialect: str
    pipeline: str
    stage: str
    error_type: str
    message: str
    rules: list[str]
    reasons: list[dict[str, Any]]
    first_failure: str | None
    last_failure: str | None
    attempt: int
    replays: int
    replay_of: str | None
    repeats: int
    schema_version: str
    source: str
    partition: int
    offset: int
    timestamp: int | None
    dead_letter_topic: str
    dead_letter_partition: int
    dead_letter_offset: int
    key: str | None
    value: Any
    headers: list[Any]

    model_config = ConfigDict(
        alias_generator=lambda name: "schema" if name == "schema_version" else to_camel(name), populate_by_name=True
    )


class LetterPage(Shape):
    """`exact` false: there are more than `count`."""

    letters: list[Letter]
    count: int
    exact: bool
    next: str | None


class LetterDetail(Letter):
    detail: dict[str, Any]
    replayed: list[dict[str, Any]]
    history: list[Entry]


class GroupDetail(Group):
    sample: Letter | None  # type: ignore[assignment]  # narrower than in the list's shape
    history: list[Entry]


class Revealed(Shape):
    """The raw record: text, or base64 for what is no text."""

    id: str
    key: str | None
    key_encoding: str | None
    value: str | None
    value_encoding: str | None
    headers: list[dict[str, Any]]


class Job(Shape):
    job: str
    state: str
    reason: str
    actor: str
    created: str | None
    finished: str | None
    letters: int
    processed: int
    followed: int
    outcomes: dict[str, int]
    request: dict[str, Any]
    owner: str | None


class JobDetail(Job):
    history: list[Entry]


class JobPage(Shape):
    """`next`: give it as `before`; null at the end."""

    jobs: list[Job]
    next: str | None


class Result(Shape):
    position: int
    id: str
    outcome: str | None
    detail: str
    again: str | None


class ResultPage(Shape):
    results: list[Result]
    next: int | None


class EntryPage(Shape):
    """`next`: give it as `before`; null at the end."""

    entries: list[Entry]
    next: int | None


class Preview(Shape):
    """chosen = pass + fail + unsent. `unchecked`: of those that pass, how many go where nothing can be said of them."""

    chosen: int
    busy: int
    passing: int
    fail: int
    unsent: int
    unchecked: int
    edited: int
    stops_before: str | None
    targets: dict[str, int]
    reasons: list[dict[str, Any]]
    not_sent: list[dict[str, Any]]
    diffs: list[dict[str, Any]]

    model_config = ConfigDict(
        alias_generator=lambda name: "pass" if name == "passing" else to_camel(name), populate_by_name=True
    )


class Done(Shape):
    """How many letters it was done to."""

    letters: int


class Topic(Shape):
    topic: str
    letters: int
    oldest_open: str | None
    retention_ms: int | None
    looked: str | None


class Expiring(Shape):
    group: str
    topic: str
    letters: int
    at: str | None
    acknowledged: bool


class Agent(Shape):
    """When an agent looked at its topics last, and whether that is recent."""

    seen: str | None
    at_work: bool


class Me(Shape):
    name: str
    role: str


class SchemaField(Shape):
    """`name`: its path in the value."""

    name: str
    type: str
    nullable: bool


class Editable(Shape):
    """`key`, `value`: as text, masked; null: null, no text, or not to be looked into. `masked`: whether fields may be."""

    id: str
    topic: str
    key: str | None
    value: str | None
    masked: bool
    schema_: list[SchemaField]
    targets: list[str]

    model_config = ConfigDict(
        alias_generator=lambda name: "schema" if name == "schema_" else to_camel(name), populate_by_name=True
    )
