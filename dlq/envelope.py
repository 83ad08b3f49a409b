"""The envelope: a record that failed, as it was, with everything needed to understand, mend and replay it.

On Kafka key and value are the original bytes and all else is headers: the record's own first, then `tidegate.dlq.*`,
then those of one dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from dlq import headers as h
from dlq.dialects import DIALECTS, UNKNOWN, Failure, Headers, Origin, last_values
from dlq.dialects.base import number, text
from dlq.earlier import is_failure_header, read_earlier
from dlq.encoding import (
    decode_reasons,
    encode_fitting_reasons,
    encode_reasons,
    parse_iso_utc,
    well_formed_reason,
)
from dlq.fingerprint import fingerprint
from dlq.limits import (
    MAX_HEADERS_BYTES,
    MAX_KEY_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_REASONS_BYTES,
    cut_headers,
    cut_stack,
    cut_text,
    header_size,
    well_formed,
)
from dlq.original import Original
from dlq.own_headers import own_headers
from tidegate.config.queue import DeadLetterConfig
from tidegate.headers import RETRY_ATTEMPT
from tidegate.record import TopicPartition, record_id
from tidegate.stages.batch import Reason, Rejection


class DeadLetterRecord(NamedTuple):
    """An envelope as Kafka takes it."""

    key: bytes | None
    value: bytes | None
    headers: Headers


class RawRecord(NamedTuple):
    """One source record. `timestamp`: Kafka's, ms. `timestamp_type`: CreateTime or LogAppendTime, None if not known."""

    tp: TopicPartition
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_type: str | None = None


class Envelope(msgspec.Struct, frozen=True):  # a frozen dataclass of so many fields takes several times as long to make
    """One dead letter. Times in ms since the epoch.

    `stage` is a `Stage`'s value; a dead letter that another tool wrote keeps that tool's word. `origin` and
    `first_failure` are those of the first failure, also when a replay fails again; `id` names the record that
    failed now. `truncated` names what was cut (value, key, headers, reasons); `value_size` and `value_sha256`
    are those of the whole value then, and None otherwise.
    """

    id: str
    pipeline: str
    stage: str
    error_type: str
    message: str
    stack: str | None
    reasons: tuple[Reason, ...]
    attempt: int
    first_failure: int
    last_failure: int
    origin: Origin
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    schema: str
    fingerprint: str
    replays: int = 0
    context: Mapping[str, Any] | None = None
    traceparent: str | None = None
    truncated: tuple[str, ...] = ()
    value_size: int | None = None
    value_sha256: str | None = None

    @classmethod
    def of(
        cls,
        rejection: Rejection,
        record: RawRecord,
        *,
        pipeline: str,
        schema: str,
        now_ms: int,
        context: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> Envelope:
        """What `rejection` says of `record`. The same rejection gives the same id whenever it is found again.

        `id`: another one than the record's (a record that is late for some windows only has its place elsewhere).
        Headers of an earlier failure are taken off; its origin, first failure and replay count stay.
        """
        reasons = tuple([well_formed_reason(reason) for reason in rejection.reasons])
        first, stage, tp = reasons[0], rejection.stage.value, record.tp
        message = cut_text(first.message, MAX_MESSAGE_BYTES)
        envelope = cls(
            id=record_id(tp, record.offset) if id is None else id,
            pipeline=pipeline,
            stage=stage,
            error_type=first.error_type,
            message=message,
            stack=None if rejection.stack is None else well_formed(rejection.stack),
            reasons=reasons,
            attempt=rejection.attempt,
            first_failure=now_ms,
            last_failure=now_ms,
            origin=Origin(tp.topic, tp.partition, record.offset, record.timestamp, record.timestamp_type),
            key=record.key,
            value=record.value,
            headers=record.headers,
            schema=schema,
            fingerprint=fingerprint(stage, first.error_type, first.rule, first.field, message),
            context=context,
        )
        return _after_earlier_failure(envelope) if record.headers else envelope

    def to_record(self, config: DeadLetterConfig) -> DeadLetterRecord:
        """Key, value and headers for the dead-letter topic, each cut to its limit (dlq/limits.py)."""
        cut = set(self.truncated)
        value, size, digest = self.value, self.value_size, self.value_sha256
        if value is not None and len(value) > config.max_value_bytes:
            cut.add("value")
            if size is None:  # an envelope that was cut before keeps what was said of the whole value
                size, digest = len(value), sha256(value).hexdigest()
            value = value[: config.max_value_bytes]
        key = self.key
        if key is not None and len(key) > MAX_KEY_BYTES:
            cut.add("key")
            key = key[:MAX_KEY_BYTES]
        headers: Headers = list(self.headers)
        if headers and sum(header_size(*header) for header in headers) > MAX_HEADERS_BYTES:
            cut.add("headers")
            headers = cut_headers(headers)
        reasons = encode_reasons(self.reasons)
        if len(reasons) > MAX_REASONS_BYTES:
            cut.add("reasons")
            reasons = encode_fitting_reasons(self.reasons)
        stack = None if self.stack is None else cut_stack(self.stack, config.max_stack_bytes)
        headers += own_headers(self, reasons, stack)
        if cut:
            headers.append((h.TRUNCATED, ",".join(sorted(cut)).encode()))
        if size is not None and digest is not None:
            headers += [(h.VALUE_SIZE, b"%d" % size), (h.VALUE_SHA256, digest.encode())]
        failure = Failure(self.origin, self.pipeline, self.stage, self.error_type, self.message, stack)
        headers += DIALECTS[config.dialect].write(failure)
        return DeadLetterRecord(key, value, headers)

    @classmethod
    def from_record(
        cls,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        tp: TopicPartition,
        offset: int,
        timestamp: int,
        values: dict[str, bytes] | None = None,
    ) -> Envelope:
        """What `to_record` wrote, or a dead letter in one of the dialects, as far as its headers tell.

        `tp`, `offset` and `timestamp` (ms) are those of the record in the dead-letter topic. They stand in where
        headers are missing or broken, so that everything in the topic can be shown. `values`: `last_values(headers)`.
        """
        values = last_values(headers) if values is None else values
        original = Original.of(key, value, headers, tp=tp, offset=offset, timestamp=timestamp, values=values)
        earlier, foreign = original.earlier, original.foreign
        stage = text(values, h.STAGE) or foreign.stage or UNKNOWN
        error_type = text(values, h.ERROR_TYPE) or foreign.error_type or UNKNOWN
        message = text(values, h.ERROR_MESSAGE)
        if message is None:
            message = foreign.message or ""
        last_failure = parse_iso_utc(text(values, h.FAILED_LAST))
        return cls(
            id=original.id,
            pipeline=text(values, h.PIPELINE) or foreign.pipeline or UNKNOWN,
            stage=stage,
            error_type=error_type,
            message=message,
            stack=text(values, h.STACK) or foreign.stack,
            reasons=decode_reasons(values.get(h.REASONS)) or (Reason(error_type, message),),
            attempt=number(values, h.ATTEMPT) or foreign.attempt or 1,
            first_failure=original.first_failure,
            last_failure=timestamp if last_failure is None else last_failure,
            origin=original.origin,
            key=key,
            value=value,
            headers=original.headers,
            schema=text(values, h.SCHEMA) or UNKNOWN,
            fingerprint=text(values, h.FINGERPRINT) or fingerprint(stage, error_type, None, None, message),
            replays=earlier.replays,
            context=_context(values),
            traceparent=text(values, h.TRACE),
            truncated=earlier.truncated,
            value_size=earlier.value_size,
            value_sha256=earlier.value_sha256,
        )


def _after_earlier_failure(envelope: Envelope) -> Envelope:
    """The envelope with what the record's own headers tell: its trace, and what stays of an earlier failure."""
    values = last_values(envelope.headers)
    trace = text(values, h.TRACEPARENT)
    kept = tuple(header for header in envelope.headers if not is_failure_header(header[0]))
    if len(kept) == len(envelope.headers):
        return envelope if trace is None else replace(envelope, traceparent=trace)
    earlier = read_earlier(values)
    return replace(
        envelope,
        traceparent=trace,
        headers=kept,
        origin=earlier.origin or envelope.origin,
        first_failure=envelope.first_failure if earlier.first_failure is None else earlier.first_failure,
        attempt=envelope.attempt + max(0, number(values, RETRY_ATTEMPT) or 0),
        replays=earlier.replays,
        truncated=earlier.truncated,
        value_size=earlier.value_size,
        value_sha256=earlier.value_sha256,
    )


def _context(values: dict[str, bytes]) -> dict[str, Any] | None:
    data = values.get(h.CONTEXT)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None
