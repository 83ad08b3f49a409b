"""The schema of a record's value, and where records come from."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from tidegate.config.base import Flag, Model, Problem, Shorthand, nearest, refuse

SIMPLE_TYPES: Final = ("string", "int", "bigint", "double", "boolean", "date", "timestamp", "array", "struct")
TYPE_WORDS: Final = "string, int, bigint, double, boolean, date, timestamp, decimal(p,s), array or struct"
_DECIMAL = re.compile(r"decimal\(([0-9]+),([0-9]+)\)")
_MAX_DIGITS = 38  # of DuckDB's and Arrow's 128-bit decimals
# What other systems call the types.
_SYNONYMS: Final = {
    "integer": "int", "int32": "int", "long": "bigint", "int64": "bigint", "float": "double", "real": "double",
    "number": "double", "bool": "boolean", "text": "string", "varchar": "string", "str": "string",
    "datetime": "timestamp", "object": "struct", "record": "struct", "map": "struct", "list": "array",
    "numeric": "decimal(10,2)", "decimal": "decimal(10,2)",
}  # fmt: skip

TOPIC_PATTERN: Final = r"^[A-Za-z0-9._-]{1,249}$"


def _not_a_folder(topic: str) -> str:
    if topic in (".", ".."):
        refuse(Problem("Kafka has no topic of this name", (), "another name than '.' and '..'"))
    return topic


Topic = Annotated[str, Field(pattern=TOPIC_PATTERN), AfterValidator(_not_a_folder)]


def _type_problem(written: str) -> Problem | None:
    if written in SIMPLE_TYPES:
        return None
    decimal = _DECIMAL.fullmatch(written)
    if decimal is None:
        near = _SYNONYMS.get(written) or nearest(written, SIMPLE_TYPES)
        return Problem("unknown type", (), TYPE_WORDS, f"did you mean '{near}'?" if near else None)
    digits, scale = int(decimal[1]), int(decimal[2])
    if not (1 <= digits <= _MAX_DIGITS and scale <= digits):
        return Problem("impossible decimal", (), f"decimal(p,s) with 1 ≤ p ≤ {_MAX_DIGITS} and s ≤ p")
    return None


def _items(value: Any) -> Any:
    """A bare `string` in the file is the items' type; what items are called does not matter."""
    if isinstance(value, str):
        return {"type": value}
    return dict(value) if isinstance(value, Column) else value


class Column(Model):
    """One field of the value."""

    name: str = Field(min_length=1)
    type: Annotated[
        str,
        WithJsonSchema(
            {"anyOf": [{"enum": list(SIMPLE_TYPES)}, {"type": "string", "pattern": f"^{_DECIMAL.pattern}$"}]}
        ),
    ]
    """string, int, bigint, double, boolean, date, timestamp, decimal(p,s), array or struct."""
    nullable: Flag = True
    unit: Literal["s", "ms", "us", "ns"] | None = None
    """For a timestamp that is written as a number."""
    format: str | None = None
    """For a timestamp that is written as text: `iso8601` or a strptime format. Text without an offset is UTC."""
    items: Annotated[Item | None, BeforeValidator(_items), Shorthand({"description": "The items' type."})] = None
    """For an array: what its items are. A bare `string` is `{type: string}`."""
    fields: tuple[Column, ...] = ()
    """For a struct: its fields."""

    @field_validator("type", mode="before")
    @classmethod
    def _without_spaces(cls, value: Any) -> Any:
        return re.sub(r"\s", "", value).lower() if isinstance(value, str) else value

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        problem = _type_problem(value)
        refuse(*([problem] if problem else []))
        return value

    @model_validator(mode="after")
    def _complete(self) -> Column:
        refuse(*self._problems())
        return self

    def _problems(self) -> list[Problem]:
        found = []
        is_time = self.type == "timestamp"
        if is_time and self.unit is None and self.format is None:
            found.append(
                Problem(
                    f"timestamp '{self.name}' does not say how it is written",
                    ("unit",),
                    "`unit` (s, ms, us, ns) for numbers, or `format` (iso8601, %Y-%m-%d …) for text",
                )
            )
        if is_time and self.unit is not None and self.format is not None:
            found.append(
                Problem(
                    f"timestamp '{self.name}' has both `unit` and `format`",
                    ("format",),
                    "one of them: `unit` for numbers, `format` for text",
                )
            )
        if self.format is not None and self.format != "iso8601" and "%" not in self.format:
            found.append(
                Problem(
                    "not a timestamp format", ("format",), "`iso8601`, or strptime fields such as %Y-%m-%d %H:%M:%S"
                )
            )
        for needs, given, wanted in (
            ("unit", self.unit is not None, "timestamp"),
            ("format", self.format is not None, "timestamp"),
            ("items", self.items is not None, "array"),
            ("fields", bool(self.fields), "struct"),
        ):
            if given and self.type != wanted:
                found.append(
                    Problem(
                        f"`{needs}` says nothing about a {self.type}", (needs,), f"no `{needs}`, or `type: {wanted}`"
                    )
                )
        if self.type == "array" and self.items is None:
            found.append(
                Problem(f"array '{self.name}' does not say what it holds", ("items",), "`items: string`, or a column")
            )
        if self.type == "struct" and not self.fields:
            found.append(Problem(f"struct '{self.name}' has no fields", ("fields",), "a list of columns"))
        return found + repeated_names([field.name for field in self.fields], "field", ("fields",))


class Item(Column):
    """What an array holds."""

    name: str = "item"


Column.model_rebuild()  # now that Item is there


def repeated_names(names: list[str], kind: str, at: tuple[str | int, ...]) -> list[Problem]:
    """A problem for each name that came before; SQL does not tell `Id` from `id`."""
    seen: dict[str, str] = {}
    found = []
    for index, name in enumerate(names):
        earlier = seen.get(name.lower())
        if earlier is None:
            seen[name.lower()] = name
            continue
        same = "twice" if earlier == name else f"besides '{earlier}', which SQL does not tell from it"
        found.append(Problem(f"{kind} '{name}' appears {same}", (*at, index, "name"), f"each {kind} once"))
    return found


class Key(Model):
    """The record's key. With `column` it is a column of the record, usable in rules and groupBy."""

    format: Literal["string", "bytes"] = "string"
    column: str | None = None
    """Results that are grouped by it are made where the key's partition is read, without the merge agent. When the topic
    gets more partitions, a key can move: on Kafka the results of windows that were open then come in two parts (a
    database adds them up). For a topic that is to grow, group by a field of the value: then the merge agent adds up."""


class Value(Model):
    """The record's value."""

    format: Literal["json"] = "json"
    additional_fields: Literal["ignore", "reject"] = "ignore"
    """What to do with a field that the schema does not name."""
    tombstones: Literal["skip", "reject"] = "skip"
    """What to do with a record whose value is null."""


class Source(Model):
    """The topics to read. Every partition of every topic is a source partition of its own."""

    topics: tuple[Topic, ...] = Field(min_length=1)
    """A topic that is taken out of the file keeps its results and its ledger, and no window waits for it any more; put back, it
    goes on where it was."""
    start_at: Literal["earliest", "latest"] = "earliest"
    """Where to start when the state knows nothing of a partition. `latest` is where the log ended when the pipeline was
    first started; partitions that the topic gets later are read from their beginning."""
    on_out_of_range: Literal["fail", "earliest"] = "fail"
    """When the log no longer has the offset the state asks for."""
    key: Key = Key()
    value: Value = Value()
