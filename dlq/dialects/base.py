"""What a dialect is: the headers one other tool writes on its dead letters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Protocol

from dlq.kind import Kind
from dlq.template import Layout

UNKNOWN = "unknown"  # what another tool's dead letter does not say


class Origin(NamedTuple):
    """Where a record was. `timestamp`: Kafka's, ms; `timestamp_type`: CreateTime or LogAppendTime. None: not known."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None = None
    timestamp_type: str | None = None


class Foreign(NamedTuple):
    """What a dialect's headers tell. What is not there is None; a topic that is not there is UNKNOWN."""

    origin: Origin
    pipeline: str | None
    stage: str | None
    error_type: str | None
    message: str | None
    stack: str | None
    attempt: int | None = None


class Reader(Protocol):
    """One tool's header names and encodings. `prefixes`: how its names begin; none for the dialect that has none."""

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        """What the headers tell, or None when the origin is not wholly there and readable."""


class Dialect(Reader, Protocol):
    """A dialect that is also written."""

    def write(self, kind: Kind, stack: str | None) -> Layout:
        """The headers that this tool would have written on letters of one kind. `stack`: the kind's, cut to the limit."""


def last_values(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, bytes]:
    """Name → the last value of that name (the newest: tools append), without nulls."""
    return {name: value for name, value in headers if value is not None}


def text(values: dict[str, bytes], name: str) -> str | None:
    """A header as text; bytes that are no UTF-8 become replacement characters: reading a dead letter never fails."""
    value = values.get(name)
    return None if value is None else value.decode("utf-8", "replace")


def number(values: dict[str, bytes], name: str) -> int | None:
    """A header that is a decimal number in text, or None when it is missing or something else."""
    value = values.get(name)
    try:
        return None if value is None else int(value)
    except ValueError:
        return None


def textual_origin(values: dict[str, bytes], topic: str, partition: str, offset: str) -> Origin | None:
    """An origin whose three headers are text, or None unless all are there and readable."""
    place = textual_place(values, topic, partition, offset)
    return None if place is None else Origin(*place)


def textual_place(values: dict[str, bytes], topic: str, partition: str, offset: str) -> tuple[str, int, int] | None:
    """The same, without its timestamp."""
    name, index, position = text(values, topic), number(values, partition), number(values, offset)
    return None if name is None or index is None or position is None else (name, index, position)
