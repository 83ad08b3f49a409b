"""The `tidegate.dlq.*` headers of letters of one kind."""

from __future__ import annotations

import msgspec

from dlq import headers as h
from dlq.dialects import Headers
from dlq.encoding import iso_utc
from dlq.kind import Kind
from dlq.letter import Letter

ENVELOPE_VERSION = b"1"


class OwnHeaders:
    """Most of them are the same on all letters of a kind, and are put into bytes once. `stack`: the kind's, cut to the limit."""

    def __init__(self, kind: Kind, stack: str | None) -> None:
        self._failure: Headers = [
            (h.VERSION, ENVELOPE_VERSION),
            (h.PIPELINE, kind.pipeline.encode()),
            (h.STAGE, kind.stage.encode()),
            (h.ERROR_TYPE, kind.error_type.encode()),
            (h.ERROR_MESSAGE, kind.message.encode()),
            (h.SCHEMA, kind.schema.encode()),
            (h.FINGERPRINT, kind.fingerprint.encode()),
        ]
        self._history: Headers = [
            (h.ATTEMPT, b"%d" % kind.attempt),
            (h.FAILED_FIRST, iso_utc(kind.first_failure).encode()),
            (h.FAILED_LAST, iso_utc(kind.last_failure).encode()),
            (h.REPLAYS, b"%d" % kind.replays),
            (h.ORIGIN_TOPIC, kind.topic.encode()),
            (h.ORIGIN_PARTITION, b"%d" % kind.partition),
        ]
        self._rest: Headers = []
        if kind.timestamp_type is not None:
            self._rest.append((h.ORIGIN_TIMESTAMP_TYPE, kind.timestamp_type.encode()))
        if stack is not None:
            self._rest.append((h.STACK, stack.encode()))
        if kind.context is not None:
            self._rest.append((h.CONTEXT, msgspec.json.encode(kind.context)))

    def of(self, letter: Letter, reasons: bytes) -> Headers:
        """Those of one letter; `reasons`: its own, as JSON."""
        headers: Headers = [
            (h.ID, letter.id.encode()),
            *self._failure,
            (h.REASONS, reasons),
            *self._history,
            (h.ORIGIN_OFFSET, b"%d" % letter.offset),
        ]
        if letter.timestamp is not None:
            headers.append((h.ORIGIN_TIMESTAMP, b"%d" % letter.timestamp))
        headers += self._rest
        if letter.traceparent is not None:
            headers.append((h.TRACE, letter.traceparent.encode()))
        return headers
