"""Dead letters thrown away, because the pipeline file says so in as many words. The ledger and the metrics count them."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from dlq.letter import Letter
from tidegate.record import OutRow, TopicPartition

log = structlog.get_logger()


class NonePublisher:
    """One `dlq.discarded` for each batch that has dead letters, with how many and the first of them."""

    @property
    def topic(self) -> None:
        return None

    def rows(self, letters: Sequence[Letter], source: TopicPartition, partitions: int) -> list[OutRow]:
        if letters:
            first = letters[0]
            log.warning(
                "dlq.discarded",
                topic=source.topic,
                partition=source.partition,
                records=len(letters),
                first=first.id,
                stage=first.kind.stage,
                error_type=first.kind.error_type,
                message=first.kind.message,
            )
        return []
