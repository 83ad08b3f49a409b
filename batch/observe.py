"""What a run tells a Prometheus: micro-batches as metrics, and whether it is at work.

Counted from what is committed, not by Spark's StreamingQueryListener: executors read the log themselves, so that Spark knows of
no rows, and a query that an outage ended would take its figures with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from tidegate import __version__
from tidegate.clock import Clock, SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import DependencyError
from tidegate.ledger import LEDGER_OUTCOMES
from tidegate.telemetry import metric_defs as m
from tidegate.telemetry.bind import bind_resilience
from tidegate.telemetry.health import Health
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter
from tidegate.telemetry.server import TelemetryServer

if TYPE_CHECKING:
    from batch.report import Report
    from batch.sink import Commit

_RUN = "run"  # the condition of /ready


class Watch(Protocol):
    """Who is told how a run goes."""

    def starting(self, what: str) -> None: ...

    def committed(self, report: Report, commit: Commit, lag: int | None) -> None:
        """A micro-batch is in the store; `lag` offsets are not yet (None: not known)."""

    def published(self, sink: str, results: Mapping[str, int]) -> None:
        """A sink beside the store has been given results, so many of each aggregation."""

    def timed_out(self, windows: Mapping[str, int]) -> None:
        """Windows have left the store for good, so many of each aggregation."""

    def waiting(self, error: DependencyError, seconds: float) -> None: ...


class Measuring:
    """A watch that counts, and passes everything on."""

    def __init__(self, pipeline: Pipeline, watch: Watch, clock: Clock | None = None) -> None:
        self._pipeline, self._watch, self._clock = pipeline, watch, clock or SystemClock()
        self.reporter = PrometheusReporter()
        self.metrics = Metrics(self.reporter)
        # Nothing here says that a run is stuck: a micro-batch may take as long as its size makes it.
        self.health = Health(self._clock, stuck_timeout=float("inf"))
        self.health.not_ready(_RUN, "starting")
        self.health.watch_breakers()
        self._delay = pipeline.event_time.delay if pipeline.event_time else 0
        self.metrics.set(m.BUILD_INFO, {"version": __version__, "engine": "spark"})
        topics = pipeline.source.topics if pipeline.source else ()
        self.metrics.prepare({"topic": topics, "aggregation": [a.name for a in pipeline.aggregations]})

    def starting(self, what: str) -> None:
        self._watch.starting(what)

    def committed(self, report: Report, commit: Commit, lag: int | None) -> None:
        self.health.is_ready(_RUN)
        self.metrics.set(m.ENGINE_ACTIVE, {"engine": "batch"}, 1)
        self.metrics.set(m.LAST_PROGRESS_TIMESTAMP, {}, self._clock.time())
        for tp, ledger in commit.ledgers.items():
            topic = {"topic": tp.topic}
            self.metrics.inc(m.RECORDS_CONSUMED, topic, ledger.read)
            for outcome in LEDGER_OUTCOMES:
                self.metrics.inc(m.RECORDS_PROCESSED, {**topic, "outcome": outcome}, getattr(ledger, outcome))
            self.metrics.inc(m.LATE_RECORDS, topic, ledger.late)
            self.metrics.inc(m.DUPLICATE_RECORDS, topic, ledger.duplicate)
        for name in {tp.topic for tp in commit.ledgers}:
            self.metrics.observe(m.BATCH_DURATION, {"topic": name}, commit.seconds)
        for aggregation, rows in commit.rows.items():
            self.metrics.inc(m.BATCH_ROWS, {"aggregation": aggregation}, rows)
        self._set_positions(commit)
        self._watch.committed(report, commit, lag)

    def published(self, sink: str, results: Mapping[str, int]) -> None:
        for aggregation, number in results.items():
            self.metrics.inc(m.RESULTS_PUBLISHED, {"sink": sink, "aggregation": aggregation}, number)
        self._watch.published(sink, results)

    def timed_out(self, windows: Mapping[str, int]) -> None:
        for aggregation, number in windows.items():
            self.metrics.inc(m.WINDOWS_TIMED_OUT, {"aggregation": aggregation}, number)
        self._watch.timed_out(windows)

    def waiting(self, error: DependencyError, seconds: float) -> None:
        self.health.not_ready(_RUN, f"waits {seconds:.1f} s: {error}")
        self._watch.waiting(error, seconds)

    def _set_positions(self, commit: Commit) -> None:
        for tp, lag in (commit.lags or {}).items():
            labels = {"topic": tp.topic, "partition": str(tp.partition)}
            self.metrics.set(m.CONSUMER_LAG, {"consumergroup": self._pipeline.pipeline_id, **labels}, lag)
        for tp, state in commit.states.items():
            if state.high_water is not None:
                labels = {"topic": tp.topic, "partition": str(tp.partition)}
                if tp in commit.ledgers:
                    self.metrics.set(m.LAST_RECORD_TIMESTAMP, {"topic": tp.topic}, state.high_water / 1000)
                self.metrics.set(m.WATERMARK, labels, (state.high_water - self._delay) / 1000)


@contextmanager
def measured(
    pipeline: Pipeline, watch: Watch, port: int | None, serves: Callable[[str], None] | None = None
) -> Iterator[Watch]:
    """The watch, with /live, /ready and /metrics on this port while the block runs (None: without them, 0: any port).

    `serves` is told where.

    Raises ConfigError when the port cannot be had.
    """
    if port is None:
        yield watch
        return
    measuring = Measuring(pipeline, watch)
    unbind = bind_resilience(measuring.metrics)
    host = pipeline.telemetry.host
    try:
        with TelemetryServer(
            measuring.health, measuring.metrics, measuring.reporter, host=host, port=port, field="--metrics-port"
        ) as server:
            if serves is not None:
                serves(server.url)
            yield measuring
    finally:
        unbind()
