"""Dead letters to several places at once."""

from __future__ import annotations

from collections.abc import Sequence

from dlq.letter import Letter
from dlq.publishers.base import Publisher
from tidegate.record import OutRow, TopicPartition


class SeveralPublishers:
    """What each of them gives. At most one of them has a topic."""

    def __init__(self, publishers: Sequence[Publisher]) -> None:
        self._publishers = publishers

    @property
    def topic(self) -> str | None:
        return next((one.topic for one in self._publishers if one.topic is not None), None)

    def rows(self, letters: Sequence[Letter], source: TopicPartition, partitions: int) -> list[OutRow]:
        return [row for one in self._publishers for row in one.rows(letters, source, partitions)]
