"""The first act: the flights go through the worker, watched until the last one is accounted for."""

from __future__ import annotations

import time
from typing import Protocol

from tidegate.clock import Clock
from tidegate.demo.metrics import Snapshot, read_metrics
from tidegate.demo.produce import DepartureProducer
from tidegate.demo.service import Service
from tidegate.demo.setting import TOPIC
from tidegate.demo.view import LiveView, Progress
from tidegate.errors import StackError

_STALL_TIMEOUT = 120.0  # s without one more record while there is lag
_QUIET = 5.0  # s of no change before it counts as the end: longer than the file's idleTimeout of 3 s
_LOOK_EVERY = 0.25  # s between two looks


class Act(Protocol):
    """What happens to the pipeline while the flights stream."""

    @property
    def worker(self) -> Service: ...

    @property
    def who(self) -> str | None:
        """Who has the pipeline, where that changes."""

    @property
    def over(self) -> bool:
        """Whether nothing but the end of the stream is awaited."""

    def look(self) -> Snapshot | None:
        """How far it is; None: not known at this moment."""

    def step(self, seen: Snapshot) -> None:
        """Go on with the act. Raises StackError when something has ended that should not."""


class WorkerAlone:
    """Nothing happens to it; the numbers are its own."""

    who: str | None = None
    over = True

    def __init__(self, worker: Service, address: str) -> None:
        self.worker, self._metrics = worker, f"{address}/metrics"

    def look(self) -> Snapshot | None:
        return read_metrics(self._metrics, TOPIC)

    def step(self, seen: Snapshot) -> None:
        self.worker.require()


def watch(act: Act, producer: DepartureProducer, total: int, view: LiveView, clock: Clock) -> None:
    """Draw until every record is accounted for and, windows having closed on quiet partitions, nothing changes."""
    producer.start()
    last, changed = Snapshot(), clock.monotonic()
    with view:
        while True:
            done = producer.finished
            seen = act.look() or last
            view.update(Progress(producer.produced, total, seen, act.who))
            act.step(seen)
            if seen != last:
                last, changed = seen, clock.monotonic()
            quiet = clock.monotonic() - changed
            ended = done and act.over and seen.records >= producer.produced and seen.lag == 0
            if ended and quiet >= _QUIET:
                return
            if quiet > _STALL_TIMEOUT and (done or seen.lag > 0):
                raise StackError(f"no progress for {_STALL_TIMEOUT:.0f} s:\n{act.worker.log_end()}")
            time.sleep(_LOOK_EVERY)
