"""The envelope: a record that failed, as it was, with everything needed to understand, mend and replay it, as it is read.

How it is made is in letter.py and kind.py, and how it is put into headers in writing.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dlq import headers as h
from dlq.dialects import UNKNOWN, Origin, last_values
from dlq.dialects.base import number, text
from dlq.encoding import decode_reasons, parse_iso_utc
from dlq.fingerprint import fingerprint
from dlq.original import Original
from tidegate.headers import Headers
from tidegate.record import TopicPartition
from tidegate.stages.batch import Reason


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
        """What `LetterWriter` wrote, or a dead letter in one of the dialects, as far as its headers tell.

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


def _context(values: dict[str, bytes]) -> dict[str, Any] | None:
    data = values.get(h.CONTEXT)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None
