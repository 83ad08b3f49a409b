"""What happens to a record: event time, rules, dedupe, handlers, aggregations, late data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tidegate.config.base import Millis, Model
from tidegate.config.schema import Column


class EventTime(Model):
    """Event time per partition: watermark = largest event time seen − delay."""

    column: str
    delay: Millis = 0
    allowed_lateness: Millis = 0
    max_future_skew: Millis | None = None
    """A record whose event time is further ahead of its Kafka timestamp than this is invalid. None: not checked."""
    idle_timeout: Millis = 60_000
    """A partition that is at its end and gave nothing for this long no longer holds windows open."""


class _Rule(Model):
    name: str | None = None
    severity: Literal["error", "warning", "info"] = "error"
    on_failure: Literal["deadLetter", "warn", "abort"] | None = None
    """None: `deadLetter` for severity error, else `warn` (counted, the record goes on)."""


class NotNull(_Rule):
    type: Literal["notNull"]
    column: str


class Range(_Rule):
    """min ≤ value ≤ max; a null passes."""

    type: Literal["range"]
    column: str
    min: float | int | str | None = None
    max: float | int | str | None = None


class Regex(_Rule):
    """The whole value matches; a null passes."""

    type: Literal["regex"]
    column: str
    pattern: str


class AllowedValues(_Rule):
    """The value is one of these; a null passes."""

    type: Literal["allowedValues"]
    column: str
    values: tuple[str | int | float | bool, ...] = Field(min_length=1)


class Length(_Rule):
    """The number of characters is within bounds; a null passes."""

    type: Literal["length"]
    column: str
    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)


class Expect(_Rule):
    """A SQL boolean expression that must be TRUE; NULL fails unless `nullPasses`."""

    type: Literal["expect"]
    expression: str
    null_passes: bool = False


Rule = Annotated[NotNull | Range | Regex | AllowedValues | Length | Expect, Field(discriminator="type")]


class Dedupe(Model):
    """The first record with a key wins, for `horizon` of event time."""

    key: str
    """A SQL expression over the record's columns."""
    horizon: Millis


class Handler(Model):
    """A Python step of the user's: `module:function`, called per record or per batch."""

    call: str
    mode: Literal["record", "batch"] = "record"
    """`record`: a dict in; a dict, or None to filter it out. `batch`: an Arrow table in and out."""
    concurrency: int = Field(default=1, ge=1)
    """Records in flight at once; order is kept per record key."""
    timeout: Millis | None = None
    output: tuple[Column, ...] | None = None
    """The columns that come out; None: the same as went in."""
    retry_on: tuple[str, ...] = ()
    """Exceptions (`module:Class`) that mean an outage, besides OSError, TimeoutError and DependencyError: retried, never dead-lettered."""


class Tumbling(Model):
    type: Literal["tumbling"] = "tumbling"
    size: Millis = Field(gt=0)


class Hopping(Model):
    type: Literal["hopping"]
    size: Millis = Field(gt=0)
    hop: Millis = Field(gt=0)


Window = Annotated[Tumbling | Hopping, Field(discriminator="type")]


class GroupBy(Model):
    """A column to group by, or a named SQL expression. A bare string in the file is a column."""

    name: str
    expression: str | None = None


class Measure(Model):
    """count, sum, avg, min, max, approxDistinct, first, last. A bare `count` in the file is `{type: count}`."""

    type: Literal["count", "sum", "avg", "min", "max", "approxDistinct", "first", "last"]
    of: str | None = None
    """A SQL expression; count without it counts records, with it values that are not null."""


class Aggregation(Model):
    """Measures per window and group."""

    name: str
    window: Window
    group_by: tuple[GroupBy, ...] = ()
    measures: dict[str, Measure]
    emit: Literal["updates", "final"] = "updates"


class LateData(Model):
    """What happens to a record that is late for all its windows. With any strategy the late table counts it."""

    strategy: Literal["drop", "logAndDrop", "sendToDLQ", "separateStream"] = "separateStream"
    topic: str | None = None
    """For separateStream; default `{pipelineId}.late`."""
