"""What a publisher is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dlq.letter import Letter
from tidegate.record import OutRow, TopicPartition


class Publisher(Protocol):
    """Takes the dead letters of one batch before the batch is written.

    `topic`: the topic that the rows are for, or None when there are never any.
    """

    @property
    def topic(self) -> str | None: ...

    def rows(self, letters: Sequence[Letter], source: TopicPartition, partitions: int) -> list[OutRow]:
        """What to write in the batch's transaction for its dead letters, in their order.

        `source`: the partition they were read from. `partitions`: how many `topic` has. No dead letters, no effect.
        """
