"""Dead letters to the log: for pipelines whose failed records are not needed again."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from dlq.envelope import Envelope
from tidegate.record import OutRow, TopicPartition

_SHOWN_VALUE_BYTES = 200

log = structlog.get_logger()


class LogPublisher:
    """One `dlq.published` for each dead letter, before its batch is written: a batch that is done again is logged
    again, with the same ids."""

    @property
    def topic(self) -> None:
        return None

    def rows(self, envelopes: Sequence[Envelope], source: TopicPartition, partitions: int) -> list[OutRow]:
        for envelope in envelopes:
            log.error(
                "dlq.published",
                id=envelope.id,
                pipeline=envelope.pipeline,
                stage=envelope.stage,
                error_type=envelope.error_type,
                message=envelope.message,
                fingerprint=envelope.fingerprint,
                attempt=envelope.attempt,
                topic=source.topic,
                partition=source.partition,
                origin_offset=envelope.origin.offset,
                value=shortened(envelope.value),
            )
        return []


def shortened(value: bytes | None) -> str | None:
    """The beginning of a value as text, with how many bytes it has in all when that is not everything."""
    if value is None:
        return None
    shown = value[:_SHOWN_VALUE_BYTES].decode("utf-8", "backslashreplace")
    return shown if len(value) <= _SHOWN_VALUE_BYTES else f"{shown}… ({len(value)} bytes)"
