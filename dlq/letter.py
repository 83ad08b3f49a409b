"""A dead letter as it is made of a record that failed. How it is written is in writing.py, how it is read in envelope.py."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from dlq import headers as h
from dlq.dialects import Origin, last_values
from dlq.dialects.base import number, text
from dlq.earlier import is_failure_header, read_earlier
from dlq.encoding import well_formed_reasons
from dlq.kind import Kind, Kinds
from tidegate.headers import RETRY_ATTEMPT
from tidegate.record import TopicPartition, record_id
from tidegate.stages.batch import Reason, Rejection

_LONGEST = 256  # bytes of what a letter takes over from headers; a topic's name has 249. Else it may outgrow what its topic takes


class RawRecord(msgspec.Struct, frozen=True, gc=False):  # a named tuple takes six times as long to make
    """One source record. `timestamp`: Kafka's, ms. `timestamp_type`: CreateTime or LogAppendTime, None if not known."""

    tp: TopicPartition
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_type: str | None = None


class Letter(msgspec.Struct, frozen=True):
    """One record's failure: what it shares with others is in `kind`, the rest is its own.

    `id` names the record that failed now; `offset` and `timestamp` (Kafka's, ms; None: not known) are those of the first
    failure, also when a replay fails again. `truncated` names what was cut when it failed before; `value_size` and
    `value_sha256` are those of the whole value then.
    """

    kind: Kind
    id: str
    reasons: tuple[Reason, ...]
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    traceparent: str | None = None
    truncated: tuple[str, ...] = ()
    value_size: int | None = None
    value_sha256: str | None = None

    @classmethod
    def of(cls, rejection: Rejection, record: RawRecord, kinds: Kinds, *, id: str | None = None) -> Letter:
        """What `rejection` says of `record`. The same rejection gives the same id whenever it is found again.

        `id`: another one than the record's (a record that is late for some windows only has its place elsewhere).
        Headers of an earlier failure are taken off; its origin, first failure and replay count stay.
        """
        letter = cls(
            kinds.of(rejection, record.tp, record.timestamp_type),
            record_id(record.tp, record.offset) if id is None else id,
            well_formed_reasons(rejection.reasons),
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            record.headers,
        )
        return _after_earlier_failure(letter) if record.headers else letter


def _after_earlier_failure(letter: Letter) -> Letter:
    """The letter with what the record's own headers tell: its trace, and what stays of an earlier failure."""
    values = {name: value for name, value in last_values(letter.headers).items() if len(value) <= _LONGEST}
    trace = text(values, h.TRACEPARENT)
    kept = tuple(header for header in letter.headers if not is_failure_header(header[0]))
    if len(kept) == len(letter.headers):
        return letter if trace is None else replace(letter, traceparent=trace)
    earlier, kind = read_earlier(values), letter.kind
    here = Origin(kind.topic, kind.partition, letter.offset, letter.timestamp, kind.timestamp_type)
    origin = here if earlier.origin is None or not _is_possible(earlier.origin) else earlier.origin
    return replace(
        letter,
        kind=replace(
            kind,
            topic=origin.topic,
            partition=origin.partition,
            timestamp_type=origin.timestamp_type,
            first_failure=kind.first_failure if earlier.first_failure is None else earlier.first_failure,
            attempt=kind.attempt + max(0, number(values, RETRY_ATTEMPT) or 0),
            replays=earlier.replays,
        ),
        offset=origin.offset,
        timestamp=origin.timestamp,
        traceparent=trace,
        headers=kept,
        truncated=earlier.truncated,
        value_size=earlier.value_size,
        value_sha256=earlier.value_sha256,
    )


def _is_possible(origin: Origin) -> bool:
    """Whether Kafka, and each dialect, has room for its numbers: anybody can put others into a header."""
    longs = (origin.offset, 0 if origin.timestamp is None else origin.timestamp)
    return -(2**31) <= origin.partition < 2**31 and all(-(2**63) <= number < 2**63 for number in longs)
