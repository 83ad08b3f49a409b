"""deadLetters: the index of dead letters (groups, search), what it reads, and what it must not hold."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from tidegate.config.base import Millis, Model, Problem, Shorthand, Whole, refuse
from tidegate.config.console import Console
from tidegate.config.schema import Topic
from tidegate.config.urls import ENCODED, POSTGRES_URL, SQLITE_URL, is_index_url


def index_url(url: SecretStr) -> SecretStr:
    """Raises for anything but the URL of a PostgreSQL database or of a SQLite file."""
    if not is_index_url(url.get_secret_value()):
        refuse(Problem("not the URL of a database", (), f"{POSTGRES_URL} or {SQLITE_URL}", ENCODED))
    return url


class Mask(Model):
    """What the index must not hold. One of `path`, `header` and `regex`."""

    path: str | None = Field(default=None, min_length=1)
    """A field of the value or key, as `customer.card` or `items[].price`; what it held is masked in messages too."""
    header: str | None = Field(default=None, min_length=1)
    """A header's name."""
    regex: str | None = Field(default=None, min_length=1)
    """What matches is masked wherever it stands: values, keys, headers, messages, stacks."""
    replacement: str = "***"

    @model_validator(mode="after")
    def _one_way(self) -> Mask:
        given = [name for name in ("path", "header", "regex") if getattr(self, name) is not None]
        if len(given) != 1:
            refuse(Problem("a mask says in one way what it hides", (), "one of `path`, `header` and `regex`"))
        if self.regex is not None:
            try:
                found = re.compile(self.regex)
            except re.error as error:
                refuse(Problem(f"not a regular expression: {error}", ("regex",), "Python's syntax"))
            else:
                if found.match("") is not None:
                    refuse(Problem("this regular expression matches nothing at all", ("regex",), "one that needs text"))
        return self


class ReplayTarget(Model):
    """A topic that dead letters may be replayed to. A bare string in the file is the topic."""

    topic: Topic
    group: str | None = Field(default=None, min_length=1)
    """The consumer group that reads it: its offsets tell when a replay has been read. Default: nobody is followed, and
    a replay that was sent counts as dealt with."""


def _bare_topic(value: Any) -> Any:
    return {"topic": value} if isinstance(value, str) else value


Target = Annotated[ReplayTarget, BeforeValidator(_bare_topic), Shorthand({"description": "A topic."})]


class DeadLetters(Model):
    """The index of dead letters, which `tidegate dlq agent` fills. Raw bytes stay in the dead-letter topic."""

    index: Annotated[SecretStr, AfterValidator(index_url)] | None = None
    """`postgresql://…` or `sqlite:///path`. Default: the database of the PostgreSQL sink, else a file in `stateDir`."""
    schema_: str = Field(default="tidegate_dlq", alias="schema", min_length=1)
    """The database schema of its tables (PostgreSQL). Pipelines that share it share one index."""
    topics: tuple[Topic, ...] = ()
    """More dead-letter topics to read, of whatever tool: Kafka Connect, Spring, Kafka Streams, share groups, …"""
    masking: tuple[Mask, ...] = ()
    """Applied before anything is written to the index."""
    replay_targets: tuple[Target, ...] = ()
    """Where dead letters may be replayed to, besides the pipeline's own source topics. Nowhere else."""
    max_replays: Whole = Field(default=3, ge=1)
    """A dead letter that has been replayed so often is parked instead of being replayed once more."""
    expiry_warning: Millis = 172_800_000
    """How long before the topic's retention deletes a dead letter that is still open a warning is given."""
    port: Whole = Field(default=6061, ge=0, le=65535)
    """Of the agent's /live, /ready and /metrics, on `telemetry.host`. 0: any free port; it is printed."""
    timeout: Millis = Field(default=30_000, gt=0)
    """How long one statement may take."""
    console: Console = Console()
    """`tidegate dlq console`."""
