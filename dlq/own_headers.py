"""The `tidegate.dlq.*` headers of an envelope."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from dlq import headers as h
from dlq.dialects import Headers
from dlq.encoding import iso_utc

if TYPE_CHECKING:
    from dlq.envelope import Envelope

ENVELOPE_VERSION = b"1"


def own_headers(envelope: Envelope, reasons: bytes, stack: str | None) -> Headers:
    """What `envelope` says, with its `reasons` as JSON and its `stack` cut to the limit."""
    origin = envelope.origin
    headers: Headers = [
        (h.ID, envelope.id.encode()),
        *_of_the_failure(
            envelope.pipeline,
            envelope.stage,
            envelope.error_type,
            envelope.message,
            envelope.schema,
            envelope.fingerprint,
        ),
        (h.REASONS, reasons),
        *_of_the_batch(
            envelope.attempt,
            envelope.first_failure,
            envelope.last_failure,
            envelope.replays,
            origin.topic,
            origin.partition,
        ),
        (h.ORIGIN_OFFSET, b"%d" % origin.offset),
    ]
    if origin.timestamp is not None:
        headers.append((h.ORIGIN_TIMESTAMP, b"%d" % origin.timestamp))
    if origin.timestamp_type is not None:
        headers.append((h.ORIGIN_TIMESTAMP_TYPE, origin.timestamp_type.encode()))
    if stack is not None:
        headers.append((h.STACK, stack.encode()))
    if envelope.context is not None:
        headers.append((h.CONTEXT, msgspec.json.encode(envelope.context)))
    if envelope.traceparent is not None:
        headers.append((h.TRACE, envelope.traceparent.encode()))
    return headers


# Most dead letters of a batch are the same failure: what they share is put into bytes once, which halves what the
# headers of a letter cost.


@lru_cache(maxsize=256)
def _of_the_failure(
    pipeline: str, stage: str, error_type: str, message: str, schema: str, fingerprint: str
) -> tuple[tuple[str, bytes], ...]:
    return (
        (h.VERSION, ENVELOPE_VERSION),
        (h.PIPELINE, pipeline.encode()),
        (h.STAGE, stage.encode()),
        (h.ERROR_TYPE, error_type.encode()),
        (h.ERROR_MESSAGE, message.encode()),
        (h.SCHEMA, schema.encode()),
        (h.FINGERPRINT, fingerprint.encode()),
    )


@lru_cache(maxsize=256)
def _of_the_batch(
    attempt: int, first_failure: int, last_failure: int, replays: int, topic: str, partition: int
) -> tuple[tuple[str, bytes], ...]:
    return (
        (h.ATTEMPT, b"%d" % attempt),
        (h.FAILED_FIRST, iso_utc(first_failure).encode()),
        (h.FAILED_LAST, iso_utc(last_failure).encode()),
        (h.REPLAYS, b"%d" % replays),
        (h.ORIGIN_TOPIC, topic.encode()),
        (h.ORIGIN_PARTITION, b"%d" % partition),
    )
