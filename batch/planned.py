"""Micro-batches that this process plans itself, where Spark's driver is a server behind Spark Connect.

There a query would run its function on the server, far from the claims and the database, and keep its account on the server's
disk. All that it would say is when there is a micro-batch, and where it ends; the broker knows the ends of the logs as well.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from batch.claims import Claims
from batch.microbatch import MicroBatches, Stopped
from batch.options import Options
from batch.source import cut, source_partitions
from tidegate.clock import Clock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import OffsetOutOfRange
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.store.reading import TopicReader

_POLL = 0.25  # seconds between looks at partitions that may have become idle
_LEAST = 0.01  # seconds between looks at the ends of the logs, whatever the interval; Spark's polling delay


@dataclass(slots=True)
class PlannedBatches:
    """As Spark's query makes them, trigger by trigger (StreamingQueries)."""

    pipeline: Pipeline
    options: Options
    claims: Claims
    batches: MicroBatches
    reader: TopicReader
    stop: threading.Event
    clock: Clock

    def follow(self, starts: Mapping[TopicPartition, int]) -> None:
        """To the ends of the logs as they are now, or with an interval until the run is stopped. Where to start is what the
        micro-batches were told. Raises what ended it."""
        try:
            if self.options.trigger.interval is None:
                self._to_the_ends()
            else:
                self._for_ever(self.options.trigger.interval / 1000)
        except Stopped:
            pass

    def _to_the_ends(self) -> None:
        ends = {tp: end for tp, (_, end) in self._left().items()}
        while left := self._left(ends):
            self.batches.take(cut(left, self.options.limit))

    def _for_ever(self, interval: float) -> None:
        """One micro-batch at most in `interval` seconds, and none while there is nothing new."""
        while not self.stop.is_set():
            due = self.clock.monotonic() + max(interval, _LEAST)
            if left := self._left():
                self.batches.take(cut(left, self.options.limit))
            while True:
                self.batches.between()
                rest = due - self.clock.monotonic()
                if rest <= 0 or self.stop.wait(min(rest, _POLL)):
                    break

    def _left(self, ends: Mapping[TopicPartition, int] | None = None) -> dict[TopicPartition, tuple[int, int]]:
        """What was not read yet of each partition that has something, up to before these offsets, or to where the log ends.

        Raises OffsetOutOfRange when a log ends before what was read of it, BrokerUnavailable.
        """
        states, reached = self.claims.states, self.batches.reached
        found = {}
        for tp in sorted({*states, *source_partitions(self.pipeline, self.reader)}):
            low, high = self.reader.bounds(tp)
            read = max(states.get(tp, PartitionState()).upto + 1, reached.get(tp, 0))
            if read > high:
                raise OffsetOutOfRange.of(tp, read, low, high)
            start, end = max(low, read), high if ends is None else ends.get(tp, 0)
            if start < end:
                found[tp] = start, end
        return found
