"""Dead letters thrown away, because the pipeline file says so in as many words. The ledger and the metrics count them."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from dlq.envelope import Envelope
from tidegate.record import OutRow, TopicPartition

log = structlog.get_logger()


class NonePublisher:
    """One `dlq.discarded` for each batch that has dead letters, with how many and the first of them."""

    @property
    def topic(self) -> None:
        return None

    def rows(self, envelopes: Sequence[Envelope], source: TopicPartition, partitions: int) -> list[OutRow]:
        if envelopes:
            first = envelopes[0]
            log.warning(
                "dlq.discarded",
                topic=source.topic,
                partition=source.partition,
                records=len(envelopes),
                first=first.id,
                stage=first.stage,
                error_type=first.error_type,
                message=first.message,
            )
        return []
