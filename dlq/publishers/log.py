"""Dead letters to the log: for pipelines whose failed records are not needed again."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from dlq.letter import Letter
from tidegate.record import OutRow, TopicPartition

_SHOWN_VALUE_BYTES = 200

log = structlog.get_logger()


class LogPublisher:
    """One `dlq.published` for each dead letter, before its batch is written: a batch that is done again is logged
    again, with the same ids."""

    @property
    def topic(self) -> None:
        return None

    def rows(self, letters: Sequence[Letter], source: TopicPartition, partitions: int) -> list[OutRow]:
        for letter in letters:
            log.error(
                "dlq.published",
                id=letter.id,
                pipeline=letter.kind.pipeline,
                stage=letter.kind.stage,
                error_type=letter.kind.error_type,
                message=letter.kind.message,
                fingerprint=letter.kind.fingerprint,
                attempt=letter.kind.attempt,
                topic=source.topic,
                partition=source.partition,
                origin_offset=letter.offset,
                value=shortened(letter.value),
            )
        return []


def shortened(value: bytes | None) -> str | None:
    """The beginning of a value as text, with how many bytes it has in all when that is not everything."""
    if value is None:
        return None
    shown = value[:_SHOWN_VALUE_BYTES].decode("utf-8", "backslashreplace")
    return shown if len(value) <= _SHOWN_VALUE_BYTES else f"{shown}… ({len(value)} bytes)"
