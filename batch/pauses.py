"""What a run does when no micro-batch is in hand: before its first one, and while nothing comes."""

from __future__ import annotations

from collections.abc import Mapping

from batch.idle import Idleness
from batch.publish.publisher import Publisher
from batch.timeouts import Timeouts
from tidegate.clock import Clock
from tidegate.record import TopicPartition

_LOOK = 10.0  # seconds between looks for what a backfill has changed; two small transactions and a sink's plan


class Pauses:
    """`idleness`: None where no partition is ever idle. `publisher`: None where there is no sink but the store."""

    def __init__(
        self, idleness: Idleness | None, publisher: Publisher | None, timeouts: Timeouts, clock: Clock
    ) -> None:
        self._idleness, self._publisher, self._timeouts = idleness, publisher, timeouts
        self._clock, self._next = clock, 0.0

    def look(self, reached: Mapping[TopicPartition, int]) -> None:
        """Has a partition become idle, so that windows have closed, or is it time to see what a backfill has changed?
        `reached`: see Idleness. Raises as `catch_up`."""
        moved = self._idleness is not None and self._idleness.look(reached)
        if moved or self._clock.monotonic() >= self._next:
            self.catch_up()

    def catch_up(self) -> None:
        """Give every sink what it lacks, and then let go of windows whose time is over: another engine may have moved the
        watermark. Raises DependencyError, StoreFenced, and what a sink says of a result it refuses."""
        if self._publisher is not None:
            self._publisher.catch_up()
        self._timeouts.look()
        self._next = self._clock.monotonic() + _LOOK
