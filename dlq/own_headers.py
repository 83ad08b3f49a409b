"""The `tidegate.dlq.*` headers of letters of one kind."""

from __future__ import annotations

import msgspec

from dlq import headers as h
from dlq.encoding import iso_utc
from dlq.kind import Kind
from dlq.template import Layout, Slot

ENVELOPE_VERSION = b"1"


def own_headers(kind: Kind, stack: str | None) -> Layout:
    """All that each of its letters has. `stack`: the kind's, cut to the limit."""
    layout: Layout = [
        (h.ID, Slot.ID),
        (h.VERSION, ENVELOPE_VERSION),
        (h.PIPELINE, kind.pipeline.encode()),
        (h.STAGE, kind.stage.encode()),
        (h.ERROR_TYPE, kind.error_type.encode()),
        (h.ERROR_MESSAGE, kind.message.encode()),
        (h.SCHEMA, kind.schema.encode()),
        (h.FINGERPRINT, kind.fingerprint.encode()),
        (h.REASONS, Slot.REASONS),
        (h.ATTEMPT, b"%d" % kind.attempt),
        (h.FAILED_FIRST, iso_utc(kind.first_failure).encode()),
        (h.FAILED_LAST, iso_utc(kind.last_failure).encode()),
        (h.REPLAYS, b"%d" % kind.replays),
        (h.ORIGIN_TOPIC, kind.topic.encode()),
        (h.ORIGIN_PARTITION, b"%d" % kind.partition),
        (h.ORIGIN_OFFSET, Slot.OFFSET),
        (h.ORIGIN_TIMESTAMP, Slot.TIMESTAMP),
    ]
    if kind.timestamp_type is not None:
        layout.append((h.ORIGIN_TIMESTAMP_TYPE, kind.timestamp_type.encode()))
    if stack is not None:
        layout.append((h.STACK, stack.encode()))
    if kind.context is not None:
        layout.append((h.CONTEXT, msgspec.json.encode(kind.context)))
    return layout
