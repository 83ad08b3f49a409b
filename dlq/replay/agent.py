"""Whoever works on replay jobs: `tidegate dlq agent` beside the index, or a command with --here. The same code.

A job has one owner at a time, by a lease with a heartbeat. An agent that is killed loses it in seconds, and the next one
goes on where Kafka says that the job is.
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass

import structlog

from dlq.index.database import IndexDatabase
from dlq.replay.jobs import STOPPED, Job, Jobs, LeaseLost
from dlq.replay.outcome import Outcomes
from dlq.replay.run import Run
from tidegate.clock import Clock, SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import DependencyError, TidegateError
from tidegate.telemetry import metric_defs as m
from tidegate.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)
_MOST_JOBS = 4  # at a time: one that waits for its pipeline does not hold up the others
_CLAIM = 1.0  # seconds between looks for jobs
_OUTAGE = (0.5, 10.0)  # seconds: first and longest wait while something is away
_STOP = 20.0  # seconds that the turn in hand may take when the agent ends


@dataclass(slots=True)
class _Work:
    """A job in hand. `due`: when its next turn is (monotonic seconds)."""

    job: Job
    run: Run | None = None
    due: float = 0.0
    outage: float = _OUTAGE[0]


class ReplayAgent:
    """Works on jobs in a thread of its own, until it is stopped. `only`: on this one job."""

    def __init__(
        self,
        pipeline: Pipeline,
        database: IndexDatabase,
        *,
        metrics: Metrics | None = None,
        only: Job | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._pipeline, self._clock = pipeline, clock or SystemClock()
        self._jobs = Jobs(database, self._clock)
        self._metrics = metrics
        self._only = None if only is None else only.id
        self._works: dict[str, _Work] = {}
        self._next_claim = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="replay", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the turn in hand, and leave the jobs to the next agent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._claim()
            for work in list(self._works.values()):
                if work.due <= self._clock.monotonic() and not self._stopping.is_set():
                    self._turn(work)
            now = self._clock.monotonic()
            due = min([self._next_claim, *(work.due for work in self._works.values())])
            self._stopping.wait(max(0.0, due - now))
        for work in list(self._works.values()):
            self._drop(work, release=True)

    def _claim(self) -> None:
        now = self._clock.monotonic()
        if now < self._next_claim:
            return
        self._next_claim = now + _CLAIM
        try:
            while len(self._works) < _MOST_JOBS and (job := self._jobs.claim(owner_name(), self._only)) is not None:
                log.info("replay.claimed", job=job.id, letters=job.total, sent=job.sent)
                self._works[job.id] = _Work(job)
            if self._metrics is not None:
                counts = self._jobs.counts()
                for state in m.REPLAY_STATES:
                    self._metrics.set(m.DLQ_REPLAY_JOBS, {"state": state}, counts.get(state, 0))
        except TidegateError as error:
            log.warning("replay.not_claimed", error=str(error))

    def _turn(self, work: _Work) -> None:
        try:
            if work.run is None:
                work.run = Run(self._pipeline, self._jobs, work.job, clock=self._clock, count=self._count)
            after = work.run.turn()
        except LeaseLost as error:
            log.warning("replay.lost", job=work.job.id, error=str(error))
            self._drop(work, release=False)
        except DependencyError as error:
            log.warning("replay.waiting", job=work.job.id, seconds=work.outage, error=str(error))
            work.due = self._clock.monotonic() + work.outage
            work.outage = min(work.outage * 2, _OUTAGE[1])
        except Exception as error:
            expected = isinstance(error, TidegateError)  # a bug is shown with its traceback
            log.error("replay.failed", job=work.job.id, error=str(error), exc_info=None if expected else error)
            self._give_up(work, error)
        else:
            work.outage = _OUTAGE[0]
            if after is None:
                self._drop(work, release=not work.run.job.finished)
            else:
                work.due = self._clock.monotonic() + after

    def _give_up(self, work: _Work, error: Exception) -> None:
        """The job stops with the reason; whoever resumes it has mended that. One that has stopped for it before, and of which
        only what was sent is yet to be followed, is left alone until its lease is over."""
        reason = str(error) if isinstance(error, TidegateError) else f"{type(error).__name__}: {error}"
        once_more = (work.job.state, work.job.reason) == (STOPPED, reason)
        try:
            if not once_more:
                Outcomes(self._jobs, self._clock).turned(work.job, STOPPED, reason)
        except TidegateError as trouble:
            log.warning("replay.not_stopped", job=work.job.id, error=str(trouble))
        self._drop(work, release=not once_more)

    def _drop(self, work: _Work, *, release: bool) -> None:
        del self._works[work.job.id]
        if work.run is not None:
            work.run.close()
        if release:
            try:
                self._jobs.release(work.job)
            except TidegateError as error:
                log.warning("replay.not_released", job=work.job.id, error=str(error))

    def _count(self, outcome: str, letters: int) -> None:
        if self._metrics is not None:
            self._metrics.inc(m.DLQ_REPLAYS, {"outcome": outcome}, letters)


def owner_name() -> str:
    """Who this process is, in the column `owner`."""
    return f"{socket.gethostname()}:{os.getpid()}"
