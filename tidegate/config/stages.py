"""What happens to a record: event time, rules, dedupe, handlers, aggregations, late data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from tidegate.config.base import Flag, Millis, Model, Problem, Shorthand, Whole, refuse
from tidegate.config.durations import format_duration
from tidegate.config.schema import Column, Topic

# A record counts in size / hop windows; beyond this each record would become as many state rows.
_MOST_OVERLAP: Final = 10_000
CALLABLE_PATTERN: Final = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
AGGREGATION_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_.-]{0,99}$"


def _bare_string(field: str) -> Callable[[Any], Any]:
    """The validator that reads a bare string as `{field: string}`."""
    return lambda value: {field: value} if isinstance(value, str) else value


class EventTime(Model):
    """Event time per partition: watermark = largest event time seen − delay."""

    column: str
    delay: Millis = 0
    """How far the watermark stays behind the largest event time."""
    allowed_lateness: Millis = 0
    """How long after the watermark has passed its end a window still takes records."""
    max_future_skew: Millis | None = None
    """A record whose event time is further ahead of its Kafka timestamp than this is invalid. Default: not checked."""
    idle_timeout: Millis = 60_000
    """A partition that is at its end and gave nothing for this long no longer holds windows open."""
    retention: Millis = Field(default=86_400_000, ge=0)
    """How long (event time) the totals of a closed window are kept for corrections, once no live record can change
    them. A replayed record of an older window is rejected (`WindowExpired`). What is forgotten does not come back when
    this is raised: start a pipeline with a new pipelineId, which counts the log anew."""
    state_timeout: Millis | None = None
    """Windows that end so long (event time) before the watermark of the whole pipeline leave the database for good, by
    `tidegate batch run`. More than `allowedLateness` and, beside it, `retention` and the longest window. Default: they stay."""


def _failure_word(value: Any) -> Any:
    """`continue` is the older word for `deadLetter`."""
    return "deadLetter" if value == "continue" else value


class _Rule(Model):
    name: str | None = Field(default=None, min_length=1)
    """Default: made of the type and the column."""
    severity: Literal["error", "warning", "info"] = "error"
    on_failure: Annotated[
        Literal["deadLetter", "warn", "abort"] | None,
        BeforeValidator(_failure_word),
        WithJsonSchema({"enum": ["deadLetter", "warn", "abort", "continue", None]}),
    ] = None
    """Default: `deadLetter` for severity error, else `warn` (counted, the record goes on). `continue` is `deadLetter`:
    the record fails, the pipeline goes on."""


class NotNull(_Rule):
    """The column has a value."""

    type: Literal["notNull"]
    column: str


def _scalar(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | str)):
        raise ValueError("expected a number or text")
    return value


# A bound of a range: a number, or text for dates, timestamps, decimals and strings.
Bound = Annotated[float | int | str | None, BeforeValidator(_scalar)]


def _bounds_problems(low: float | str | None, high: float | str | None) -> list[Problem]:
    if low is None and high is None:
        return [Problem("neither `min` nor `max` is given", ("min",), "one of them, or both")]
    comparable = isinstance(low, int | float) and isinstance(high, int | float)
    if comparable and low > high:  # type: ignore[operator]  # both are of one comparable type here
        return [Problem("`min` is above `max`: nothing can pass", ("min",), f"at most {high}")]
    return []


class Range(_Rule):
    """min ≤ value ≤ max; a null passes."""

    type: Literal["range"]
    column: str
    min: Bound = None
    max: Bound = None

    @model_validator(mode="after")
    def _bounded(self) -> Range:
        refuse(*_bounds_problems(self.min, self.max))
        return self


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
    min: Whole | None = Field(default=None, ge=0)
    max: Whole | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _bounded(self) -> Length:
        refuse(*_bounds_problems(self.min, self.max))
        return self


class Expect(_Rule):
    """A SQL boolean expression that must be TRUE; NULL fails unless `nullPasses`."""

    type: Literal["expect"]
    expression: str = Field(min_length=1)
    null_passes: Flag = False


Rule = Annotated[NotNull | Range | Regex | AllowedValues | Length | Expect, Field(discriminator="type")]


class Dedupe(Model):
    """The first record with a key wins, for `horizon` of event time."""

    key: str = Field(min_length=1)
    """A SQL expression over the record's columns."""
    horizon: Millis = Field(gt=0)
    """For how much event time a key is remembered."""


class Handler(Model):
    """A Python step of the user's: `module:function`, called per record or per batch.

    What it does outside happens at least once: a batch that was not written yet is handled again after a crash. What it
    gives back, leaves out or refuses counts once: with a database it is kept with the results until Kafka has them too, and
    is not asked for again, so it may depend on the time, on chance or on another service. The context, which a handler gets
    if it takes a second parameter, has the record's `id`, the same each time: the idempotency key for what it does outside.
    """

    call: str = Field(pattern=CALLABLE_PATTERN)
    """`module:function`."""
    mode: Literal["record", "batch"] = "record"
    """`record`: a dict in; a dict, or None to filter it out. `batch`: an Arrow table in and out, with the column `_offset`;
    an offset that does not come back is filtered out. The context's fields: of a record `id`, `topic`, `partition`, `offset`,
    `timestamp` and `event_time` (ms); of a batch `topic`, `partition` and `ids` (one per row)."""
    concurrency: Whole = Field(default=1, ge=1)
    """Records (`mode: batch`: batches) in flight at once, over all partitions of a worker; order is kept per record key."""
    timeout: Millis | None = None
    """How long one call may take."""
    output: tuple[Column, ...] | None = None
    """The columns that come out. Default: the same as went in."""
    preview: Flag = False
    """It has no effect on the outside, so that the preview of a replay may call it. Default: previews stop before it."""
    retry_on: tuple[Annotated[str, Field(pattern=CALLABLE_PATTERN)], ...] = ()
    """Exceptions (`module:Class`) that mean an outage, besides OSError, TimeoutError and DependencyError: retried,
    never dead-lettered."""


class Tumbling(Model):
    """Windows side by side: a record counts in one."""

    type: Literal["tumbling"] = "tumbling"
    size: Millis = Field(gt=0)


class Hopping(Model):
    """Windows of `size` that start every `hop`: a record counts in size / hop of them (10 000 at most), and costs as much
    as so many records in tumbling windows: time, state and rows in the database."""

    type: Literal["hopping"]
    size: Millis = Field(gt=0)
    hop: Millis = Field(gt=0)

    @model_validator(mode="after")
    def _overlapping(self) -> Hopping:
        if self.size < self.hop:
            refuse(
                Problem(
                    "the windows have gaps between them", ("hop",), f"at most the size, {format_duration(self.size)}"
                )
            )
        if self.size > self.hop * _MOST_OVERLAP:
            refuse(
                Problem(
                    f"each record would count in {-(-self.size // self.hop)} windows",
                    ("hop",),
                    f"at least 1/{_MOST_OVERLAP} of the size",
                )
            )
        return self


def _tumbling_by_default(value: Any) -> Any:
    return {"type": "tumbling", **value} if isinstance(value, dict) else value


Window = Annotated[Tumbling | Hopping, Field(discriminator="type"), BeforeValidator(_tumbling_by_default)]


class GroupBy(Model):
    """A column to group by, or a named SQL expression. A bare string in the file is a column."""

    name: str = Field(min_length=1)
    """The column, or the name of the expression."""
    expression: str | None = Field(default=None, min_length=1)


class Measure(Model):
    """count, sum, avg, min, max, approxDistinct, first, last. A bare `count` in the file is `{type: count}`."""

    type: Literal["count", "sum", "avg", "min", "max", "approxDistinct", "first", "last"]
    of: str | None = None
    """A SQL expression; count without it counts records, with it values that are not null."""

    @model_validator(mode="after")
    def _argument(self) -> Measure:
        if self.of is None and self.type != "count":
            refuse(Problem(f"{self.type} of what?", ("of",), "a column or a SQL expression"))
        return self


GroupByColumn = Annotated[GroupBy, BeforeValidator(_bare_string("name")), Shorthand({"description": "A column."})]
NamedMeasure = Annotated[Measure, BeforeValidator(_bare_string("type")), Shorthand({"const": "count"})]


class Aggregation(Model):
    """Measures per window and group."""

    name: str = Field(pattern=AGGREGATION_PATTERN)
    """Part of the names of topics and tables."""
    window: Window
    group_by: tuple[GroupByColumn, ...] = ()
    measures: dict[str, NamedMeasure] = Field(min_length=1)
    """Name → measure."""
    emit: Literal["updates", "final"] = "updates"
    """What sinks beside the database are given. `updates`: a result whenever it changes; `final`: once, when its window has
    closed. A sink's `outputMode` goes first."""


class LateData(Model):
    """What happens to a record that is late for all its windows. With any strategy the late table counts it."""

    strategy: Literal["drop", "logAndDrop", "sendToDLQ", "separateStream"] = "separateStream"
    topic: Topic | None = None
    """For separateStream; default `{pipelineId}.late`."""

    @model_validator(mode="after")
    def _topic_is_used(self) -> LateData:
        if self.topic is not None and self.strategy != "separateStream":
            refuse(
                Problem(
                    f"`{self.strategy}` writes to no topic of its own",
                    ("topic",),
                    "no topic, or `strategy: separateStream`",
                )
            )
        return self
