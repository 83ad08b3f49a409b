"""What a run says of itself in the database, from a thread of its own: no micro-batch waits for it, and none fails by it."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from batch.observe import Watch
from tidegate.clock import Clock, SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import DependencyError, TidegateError
from tidegate.record import TopicPartition
from tidegate.store.runs import Beat, Position, Runs

if TYPE_CHECKING:
    from batch.report import Report
    from batch.sink import Commit

log = structlog.get_logger(__name__)

_EVERY: Final = 2.0  # seconds between beats
_LEAST: Final = 0.25  # seconds: micro-batches of a few milliseconds share a beat
_LAST: Final = 5.0  # seconds that the end of a run waits for the last beat; then others find it gone
_RATE_OF: Final = 10  # micro-batches


class Recording:
    """A watch that keeps the run's row up to date, and passes everything on."""

    def __init__(self, pipeline: Pipeline, trigger: str, watch: Watch, runs: Runs, clock: Clock | None = None) -> None:
        """`runs` is closed at the end. `trigger`: as it was given."""
        self._watch, self._runs = watch, runs
        self._delay = pipeline.event_time.delay if pipeline.event_time else None
        host, run = socket.gethostname(), uuid.uuid4().hex[:8]
        self._beat = Beat(run, query=pipeline.pipeline_id, host=host, pid=os.getpid(), trigger=trigger)
        self._clock, self._since = clock or SystemClock(), float("-inf")
        self._last: deque[tuple[int, float]] = deque(maxlen=_RATE_OF)  # records and seconds
        self._lock, self._news, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self._prepared = self._failing = False
        self._thread = threading.Thread(target=self._go_on, name="recording", daemon=True)
        self._stop = threading.Event()

    def begin(self, stop: threading.Event) -> None:
        """`stop` is set when somebody asks for it."""
        self._stop = stop
        self._thread.start()

    def end(self, report: Report) -> None:
        """Say how it ended."""
        self._say(state=report.outcome, error=report.error, doing="")
        self._ended.set()
        self._news.set()
        self._thread.join(_LAST)
        self._runs.close()

    def serves(self, url: str) -> None:
        """Where the run's metrics are."""
        self._say(metrics=url)

    def shows(self, url: str) -> None:
        """Where Spark's own pages are."""
        log.info("batch.ui", url=url)
        self._say(ui=url)

    def starting(self, what: str) -> None:
        self._say(doing=f"starting: {what}")
        self._watch.starting(what)

    def committed(self, report: Report, commit: Commit, lag: int | None) -> None:
        read = sum(ledger.read for ledger in commit.ledgers.values())
        # The next is computed while one is being committed: what they share counts once.
        since, self._since = self._since, self._clock.monotonic()
        self._last.append((read, min(commit.seconds, self._since - since)))
        seconds = sum(seconds for _, seconds in self._last)
        self._say(
            doing="",
            batches=self._beat.batches + 1,  # not the report's: a catch-up has one for each of its rounds
            read=self._beat.read + read,
            records_per_second=sum(records for records, _ in self._last) / seconds if seconds else None,
            batch_seconds=commit.seconds,
            positions=tuple(self._position(commit, tp) for tp in sorted(commit.states)),
        )
        self._watch.committed(report, commit, lag)

    def published(self, sink: str, results: Mapping[str, int]) -> None:
        with self._lock:
            before = dict(self._beat.published)
        self._say(published=before | {sink: before.get(sink, 0) + sum(results.values())})
        self._watch.published(sink, results)

    def timed_out(self, windows: Mapping[str, int]) -> None:
        self._watch.timed_out(windows)

    def waiting(self, error: DependencyError, seconds: float) -> None:
        self._say(doing=f"waiting {seconds:.1f} s: {error}")
        self._watch.waiting(error, seconds)

    def _position(self, commit: Commit, tp: TopicPartition) -> Position:
        state, watermark = commit.states[tp], None
        if self._delay is not None and state.high_water is not None:
            watermark = state.high_water - self._delay
        upto = state.upto if state.upto >= 0 else None
        return Position(tp.topic, tp.partition, upto, (commit.lags or {}).get(tp), watermark)

    def _say(self, **what: object) -> None:
        with self._lock:
            self._beat = replace(self._beat, **what)  # type: ignore[arg-type]  # some of its fields, by name
        self._news.set()

    def _go_on(self) -> None:
        while not self._ended.is_set():
            self._news.clear()
            self._write()
            if not self._ended.is_set():
                self._news.wait(_EVERY)
                self._ended.wait(_LEAST)
        self._write()

    def _write(self) -> None:
        """One beat. What fails is logged once, and written with the next beat that does not."""
        with self._lock:
            beat = self._beat
        if self._stop.is_set() and beat.state == "running":
            beat = replace(beat, state="stopping")
        try:
            if not self._prepared:
                self._runs.prepare()
                self._prepared = True
            if self._runs.beat(beat):
                self._stop.set()
            self._failing = False
        except TidegateError as error:
            if not self._failing:
                log.warning("batch.beat_failed", error=str(error))
            self._failing = True
