"""Attempts at a run, one after the other until one comes to its end.

The store's partition rows are the only state: every attempt begins where the store is, whatever ended the one before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from batch.claims import Claims
from batch.microbatch import MicroBatches, Stopped
from batch.pauses import Pauses
from batch.source import starting_offsets
from tidegate.config.pipeline import Pipeline
from tidegate.errors import CircuitOpen, DependencyError, EngineFailed
from tidegate.record import TopicPartition
from tidegate.store.reading import TopicReader

log = structlog.get_logger(__name__)
_OUTAGE_WAIT = (0.5, 10.0)  # seconds: first and longest wait when no breaker says how long


class Way(Protocol):
    """Who says when there is a micro-batch, and where it ends."""

    def follow(self, starts: Mapping[TopicPartition, int]) -> None:
        """Micro-batches from these offsets on, until the run is done or told to stop. Raises what ended them."""


@dataclass(slots=True)
class Attempts:
    """`waiting` is told of an outage, and for how many seconds it is waited."""

    pipeline: Pipeline
    way: Way
    claims: Claims
    batches: MicroBatches
    pauses: Pauses
    reader: TopicReader
    stop: threading.Event
    waiting: Callable[[DependencyError, float], None]

    def until_done(self) -> None:
        """An outage ends an attempt, and the next begins where the store is. Raises what is no outage."""
        wait = _OUTAGE_WAIT[0]
        while not self.stop.is_set():
            before = self.claims.states
            try:
                self._try()
                return
            except Stopped:  # its last micro-batch has been given up
                return
            except DependencyError as error:
                wait = wait if self.claims.states == before else _OUTAGE_WAIT[0]
                pause = error.retry_after_ms / 1000 if isinstance(error, CircuitOpen) else wait
                log.warning("batch.waiting", seconds=round(pause, 3), error=str(error))
                self.waiting(error, pause)
                self.stop.wait(pause)
                wait = min(wait * 2, _OUTAGE_WAIT[1])

    def _try(self) -> None:
        """From the store's offsets to the end of the run, or to what ends it."""
        if self.batches.failed:  # the outcome of the last write may be unknown
            self.claims.renew()
        self.pauses.catch_up()
        starts = self._starts()
        self.batches.begin(starts)
        try:
            self.way.follow(starts)
        except EngineFailed:
            self._starts()  # raises if it was the broker, or the log
            raise
        finally:
            self.batches.settle()

    def _starts(self) -> dict[TopicPartition, int]:
        assert self.pipeline.source is not None
        return starting_offsets(self.pipeline.source, self.claims.states, self.reader)
