"""The schema of a record's value, and where records come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tidegate.config.base import Model


class Column(Model):
    """One field of the value. `type`: string, int, bigint, double, boolean, date, timestamp, decimal(p,s), array, struct."""

    name: str
    type: str
    nullable: bool = True
    unit: Literal["s", "ms", "us", "ns"] | None = None
    """For a timestamp that is written as a number."""
    format: str | None = None
    """For a timestamp that is written as text: `iso8601` or a strptime format. Text without an offset is UTC."""
    items: Column | None = None
    """For an array: what its items are (their name does not matter)."""
    fields: tuple[Column, ...] = ()
    """For a struct: its fields."""


class Key(Model):
    """The record's key. With `column` it is a column of the record, usable in rules and groupBy."""

    format: Literal["string", "bytes"] = "string"
    column: str | None = None


class Value(Model):
    """The record's value."""

    format: Literal["json"] = "json"
    additional_fields: Literal["ignore", "reject"] = "ignore"
    tombstones: Literal["skip", "reject"] = "skip"


class Source(Model):
    """The topics to read. Every partition of every topic is a source partition of its own."""

    topics: tuple[str, ...] = Field(min_length=1)
    start_at: Literal["earliest", "latest"] = "earliest"
    """Where to start when the state knows nothing of a partition."""
    on_out_of_range: Literal["fail", "earliest"] = "fail"
    """When the log no longer has the offset the state asks for."""
    key: Key = Key()
    value: Value = Value()
