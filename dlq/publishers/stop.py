"""No dead-letter queue: the first record that fails stops the pipeline, with its offset unmoved."""

from __future__ import annotations

from collections.abc import Sequence

from dlq.letter import Letter
from tidegate.errors import PipelineAborted
from tidegate.record import OutRow, TopicPartition


class StopPublisher:
    """Raises PipelineAborted for the first dead letter."""

    @property
    def topic(self) -> None:
        return None

    def rows(self, letters: Sequence[Letter], source: TopicPartition, partitions: int) -> list[OutRow]:
        if not letters:
            return []
        first = letters[0]
        others = f" ({len(letters) - 1} more in this batch)" if len(letters) > 1 else ""
        raise PipelineAborted(
            f"record {first.id} failed in {first.kind.stage}: {first.kind.error_type}: {first.kind.message}{others}\n"
            "  The pipeline has no dead-letter queue, so it stops here and no offset moves.\n"
            "  hint: set errorHandling.deadLetterQueue to {enabled: true, type: kafka}, or mend the record's producer"
        )
