"""What goes into the stages and what comes out: raw batches, the partition's state, and the batch's result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegate.ledger import Ledger
from tidegate.record import Lane, LogRecord, Stage, TopicPartition

HEADERS_TYPE = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))

RAW_SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # Kafka's record timestamp, ms since the epoch
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),  # null = tombstone
        pa.field("headers", HEADERS_TYPE),  # null = none
    ]
)


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Records of one partition in offset order, as RAW_SCHEMA. Offsets may have gaps."""

    tp: TopicPartition
    records: pa.RecordBatch

    @classmethod
    def of(
        cls,
        tp: TopicPartition,
        offsets: Sequence[int | None],
        timestamps: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Iterable[tuple[str, bytes | None]] | None],
    ) -> RawBatch:
        """From columns of equal length: Kafka's timestamps in ms, a record's headers in their order (empty or None: none)."""
        named: pa.Array = pa.nulls(len(headers), HEADERS_TYPE)
        if any(headers):
            named = pa.array(
                [[{"key": k, "value": v} for k, v in one] if one else None for one in headers], HEADERS_TYPE
            )
        columns = [
            pa.array(offsets, pa.int64()),
            pa.array(timestamps, pa.int64()),
            pa.array(keys, pa.binary()),
            pa.array(values, pa.binary()),
            named,
        ]
        return cls(tp, pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA))

    @classmethod
    def of_records(cls, tp: TopicPartition, records: Sequence[LogRecord]) -> RawBatch:
        """From records in offset order."""
        return cls.of(
            tp,
            [one.offset for one in records],
            [one.timestamp for one in records],
            [one.key for one in records],
            [one.value for one in records],
            [one.headers for one in records],
        )

    def __len__(self) -> int:
        return int(self.records.num_rows)

    @property
    def first(self) -> int:
        return int(self.records.column(0)[0].as_py())

    @property
    def last(self) -> int:
        return int(self.records.column(0)[-1].as_py())


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The partition row: all that the stages need to know of what came before, and the ledger.

    `upto` is the last applied offset (-1: none). `high_water` is the largest event time among valid records, in ms
    (None: none yet). `dedupe_clock` is the largest event time among validated records, duplicates included, in ms.
    `idle`: the partition was at its end for `idleTimeout` and no longer holds windows open; any record ends that.
    `topic_id` says which log the offsets are of: a topic that is deleted and made anew has another id ("": not known, as
    in a row of before there were ids; it is filled in by the next batch). `lines`: what waits for a delayed retry of each
    key, where its order is kept (turns.py writes and reads it). `replays`: which replays have been there (repeats.py).
    """

    upto: int = -1
    high_water: int | None = None
    dedupe_clock: int | None = None
    ledger: Ledger = field(default_factory=Ledger)
    idle: bool = False
    topic_id: str = ""
    lines: bytes = b""
    replays: bytes = b""


class Seen(Protocol):
    """What dedupe remembers: the event time (ms) of the first record with a key."""

    def get(self, keys: Sequence[bytes]) -> list[int | None]:
        """The event time of each key's first record, or None; same length and order as `keys`."""


class NothingSeen:
    """For pipelines without dedupe, and for the first batch."""

    def get(self, keys: Sequence[bytes]) -> list[int | None]:
        return [None] * len(keys)


class Reason(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):  # a frozen dataclass is slower to make
    """One failure of one record. `field` is a column or a path in the value; `found` shows what was there (shortened).

    As JSON it is what stands in a dead letter's header: names in camelCase, what it does not say left out.
    """

    error_type: str  # MalformedJson, WrongType, MissingField, RuleViolation, FutureEventTime, ...
    message: str
    rule: str | None = None
    field: str | None = None
    found: str | None = None


class Rejection(msgspec.Struct, frozen=True):
    """A record that goes to the dead-letter queue. The first reason names it; all are kept."""

    offset: int
    stage: Stage
    reasons: tuple[Reason, ...]
    stack: str | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Deferral:
    """A record that is tried again later: after the delay number `rung`, from 0. It has been tried `tries` times.

    `behind`: it was not tried this time but waits for its turn, and the first in its line was put away at that offset.
    """

    rejection: Rejection
    rung: int
    tries: int
    behind: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What was said by those whom a repeat might hear say something else: handlers and sinks. By offset, for one stretch
    of one partition: the records with `after` < offset ≤ `upto`. Whoever repeats the stretch takes these and asks nobody.

    `rows`: what the handlers gave back, the last one's columns and `_offset`, in offset order; None when there were no
    handlers. `rejected`: what a handler or a sink has refused; it goes before `rows`. `filtered`: the offsets that handlers
    left out. On records that did not get as far as the handlers the log alone decides: they are not in it. `settled`: the
    results are written, so nobody else may get there now. Before that the next attempt can have more: a replay is no
    duplicate any more when the sink has refused the record that it would be one of.
    """

    after: int
    upto: int
    rows: pa.Table | None = None
    rejected: Mapping[int, Rejection] = field(default_factory=dict)
    filtered: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    settled: bool = False

    def covers(self, after: int, upto: int) -> bool:
        """Whether it stands for all records with `after` < offset ≤ `upto`."""
        return self.after <= after and upto <= self.upto


@dataclass(frozen=True, slots=True)
class MissedWindow:
    """A window that was closed for a record: aggregation name, and the window's bounds in ms."""

    aggregation: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LateRecord:
    """A record that is late for `missed`. `partial`: it still counted for other windows, so the ledger has it as accepted."""

    offset: int
    event_time: int  # ms
    watermark: int  # ms, as it stood before this record
    missed: tuple[MissedWindow, ...]
    partial: bool = False


@dataclass(slots=True)
class RuleTally:
    """What one rule found in one batch. `rejects`: the records go to the dead letters. `samples` holds up to 10 (offset, what was
    found)."""

    severity: str
    rejects: bool
    failures: int = 0
    samples: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class BatchResult:
    """All that one batch changes. Nothing in it has happened yet: the engine writes it, atomically, or drops it.

    `deltas`: per aggregation one table, a row per (window, group, lane): `window_start`, `window_end` (int64 ms), `lane`,
    the group's columns, the measures' partial columns (tidegate.stages.measures), `records`, `upto` (largest offset in it).
    `late_windows`: `aggregation`, `window_start`, `window_end`, `missing`: a row per window that missed records.
    `accepted`: the typed rows, with `_offset`, `_timestamp`, `_event_time` (ms, null without event time) and `_lane`; without
    handlers only the columns that something after the rules looks at.
    `answers`: what handlers and sinks said, to be kept with what is written; None when nobody was asked. `repeats`: replays that
    were sent a second time, and went no further. `seconds`: how long each stage took, by its name.
    """

    raw: RawBatch
    before: PartitionState
    state: PartitionState
    accepted: pa.Table
    deltas: dict[str, pa.Table] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    deferred: list[Deferral] = field(default_factory=list)
    late: list[LateRecord] = field(default_factory=list)
    late_windows: pa.Table | None = None
    seen: list[tuple[bytes, int]] = field(default_factory=list)
    rules: dict[str, RuleTally] = field(default_factory=dict)
    answers: Answers | None = None
    repeats: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        """What this batch alone adds."""
        before, after = self.before.ledger, self.state.ledger
        return Ledger(*(getattr(after, n) - getattr(before, n) for n in Ledger.__slots__))

    def answers_with(self, refused: Mapping[int, Rejection]) -> Answers:
        """The answers of this batch and what a sink has refused of it, by offset: for running it again without that."""
        given = self.answers or Answers(self.before.upto, self.state.upto)
        return replace(given, rejected={**given.rejected, **refused})


LATE_WINDOWS_SCHEMA = pa.schema(
    [
        pa.field("aggregation", pa.string(), nullable=False),
        pa.field("window_start", pa.int64(), nullable=False),
        pa.field("window_end", pa.int64(), nullable=False),
        pa.field("missing", pa.int64(), nullable=False),
    ]
)

__all__ = [
    "HEADERS_TYPE", "LATE_WINDOWS_SCHEMA", "RAW_SCHEMA", "Answers", "BatchResult", "Deferral", "Lane", "LateRecord",
    "MissedWindow", "NothingSeen", "PartitionState", "RawBatch", "Reason", "Rejection", "RuleTally", "Seen",
]  # fmt: skip
