"""Idle partitions: at their end for `idleTimeout`, so that they no longer hold windows open. For runs that go on for ever."""

from __future__ import annotations

from collections.abc import Mapping

from batch.claims import Claims
from tidegate.clock import Clock
from tidegate.record import TopicPartition
from tidegate.store.reading import TopicReader

_LOOK = 1.0  # seconds between looks


class Idleness:
    """Says in the store which partitions are idle. A micro-batch with records of one ends that, by its partition row.

    `timeout` in seconds.
    """

    def __init__(self, claims: Claims, reader: TopicReader, timeout: float, clock: Clock) -> None:
        self._claims, self._reader, self._timeout, self._clock = claims, reader, timeout, clock
        self._at_end: dict[TopicPartition, tuple[int, float]] = {}  # the end, and since when it is that
        self._idle: dict[TopicPartition, int] = {}  # the end at which the partition was said to be idle
        self._next = 0.0

    def look(self, reached: Mapping[TopicPartition, int]) -> bool:
        """Whether a partition has become idle. `reached`: the offsets before which everything was read, which a state does not
        know where a log ends with markers of transactions.

        Raises DependencyError.
        """
        now = self._clock.monotonic()
        if now < self._next:
            return False
        self._next = now + _LOOK
        for tp, state in self._claims.states.items():
            _, end = self._reader.bounds(tp)
            if max(state.upto + 1, reached.get(tp, 0)) < end:
                self._at_end.pop(tp, None)
            elif self._at_end.get(tp, (-1, 0.0))[0] != end:
                self._at_end[tp] = end, now
        idle = {tp: end for tp, (end, since) in self._at_end.items() if now - since >= self._timeout}
        new = [tp for tp, end in idle.items() if self._idle.get(tp) != end]
        if new:
            self._claims.set_idle(new)
            self._idle |= {tp: idle[tp] for tp in new}
        return bool(new)
