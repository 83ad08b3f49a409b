"""The words for a record and where it is: stages, partitions, lanes and ids."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from tidegate.headers import Headers
from tidegate.recordformat import PackedHeaders


class Stage(StrEnum):
    """One record's way, in order. These values appear unchanged in code, envelopes, logs, metrics and the README."""

    __hash__ = str.__hash__  # Enum's own is written in Python, and each dead letter's stage is looked up

    CONSUME = "consume"
    DECODE = "decode"
    VALIDATE = "validate"
    DEDUPE = "dedupe"
    EVENT_TIME = "event_time"
    HANDLE = "handle"
    AGGREGATE = "aggregate"
    SINK = "sink"
    COMMIT = "commit"


class Lane(StrEnum):
    """Which way a record came: state rows are kept per lane, so that an amendment can be told from the first count."""

    LIVE = "live"
    LATE = "late"
    REPLAY = "replay"


class TopicPartition(NamedTuple):
    """One source partition."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


def record_id(tp: TopicPartition, offset: int, stage: Stage | None = None) -> str:
    """The deterministic id of whatever was written for one record: `topic-partition-offset[-stage]`.

    Whatever is written twice after a crash carries the same id and is counted once.
    """
    base = f"{tp.topic}-{tp.partition}-{offset}"
    return base if stage is None else f"{base}-{stage.value}"


class OutRow(msgspec.Struct, frozen=True, gc=False):  # a named tuple takes six times as long to make
    """One record to be written to Kafka in the batch's transaction. `timestamp` in ms; None: the producer's clock."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers | PackedHeaders
    timestamp: int | None = None


class LogRecord(Protocol):
    """A record of a log, as whoever has read it has it. `timestamp`: ms since the epoch; a null `value` is a tombstone."""

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...
