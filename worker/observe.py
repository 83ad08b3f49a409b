"""What the worker tells the world: a committed step as metrics and log events, and which partitions wait for what."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple

import structlog

from tidegate import __version__
from tidegate.clock import Clock, SystemClock
from tidegate.ledger import LEDGER_COLUMNS, Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import BatchResult, PartitionState, RawBatch
from tidegate.stages.plan import Plan
from tidegate.telemetry import metric_defs as m
from tidegate.telemetry.bind import bind_resilience
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter
from worker.source import Step

log = structlog.get_logger(__name__)


class Observer:
    """One per worker. Called from the loop's thread, read from the HTTP server's."""

    def __init__(self, plan: Plan, clock: Clock | None = None) -> None:
        self._plan, self._clock = plan, clock or SystemClock()
        self.reporter = PrometheusReporter()
        self.metrics = Metrics(self.reporter)
        self.waiting: dict[TopicPartition, str] = {}
        self.on_progress: Callable[[], None] = lambda: None
        self._open_windows: dict[tuple[TopicPartition, str], frozenset[int]] = {}
        self._delay = plan.pipeline.event_time.delay if plan.pipeline.event_time else 0
        self._assigned: set[TopicPartition] = set()
        self.metrics.set(m.BUILD_INFO, {"version": __version__, "engine": "worker"})
        source = plan.pipeline.source
        self.metrics.prepare(
            {
                "topic": source.topics if source else (),
                "aggregation": [a.name for a in plan.aggregations],
            }
        )
        bind_resilience(self.metrics)

    # Partitions

    def assigned(self, tps: Iterable[TopicPartition]) -> None:
        self._assigned |= set(tps)
        self.on_progress()
        self.metrics.inc(m.REBALANCES)
        self.metrics.set(m.ASSIGNED_PARTITIONS, {}, len(self._assigned))

    def revoked(self, tps: Iterable[TopicPartition]) -> None:
        self._assigned -= set(tps)
        self.metrics.set(m.ASSIGNED_PARTITIONS, {}, len(self._assigned))
        for tp in tps:
            self.resumed(tp)
            labels = {"topic": tp.topic, "partition": str(tp.partition)}
            self.metrics.drop(m.WATERMARK, labels)
            self.metrics.drop(m.CONSUMER_LAG, {"consumergroup": self._plan.pipeline.pipeline_id, **labels})
            for key in [key for key in self._open_windows if key[0] == tp]:
                del self._open_windows[key]
        self._set_open_windows()

    def restored(self, tp: TopicPartition, records: int, seconds: float) -> None:
        self.metrics.inc(m.STATE_RESTORED_RECORDS, value=records)
        self.metrics.set(m.STATE_RESTORE_SECONDS, {}, seconds)
        if records:
            log.info(
                "state.restored", topic=tp.topic, partition=tp.partition, records=records, seconds=round(seconds, 3)
            )

    def paused(self, tp: TopicPartition, reason: str) -> None:
        self.waiting[tp] = reason
        self._set_paused(tp.topic)

    def resumed(self, tp: TopicPartition) -> None:
        if self.waiting.pop(tp, None) is not None:
            self._set_paused(tp.topic)
        self.on_progress()

    def lag(self, tp: TopicPartition, records: int) -> None:
        labels = {"consumergroup": self._plan.pipeline.pipeline_id, "topic": tp.topic, "partition": str(tp.partition)}
        self.metrics.set(m.CONSUMER_LAG, labels, records)

    # Batches

    @contextmanager
    def batch(self, tp: TopicPartition, raw: RawBatch) -> Iterator[None]:
        """Around the work on one batch: its duration, and its records while they are in progress."""
        topic, started = {"topic": tp.topic}, self._clock.monotonic()
        self.metrics.inc(m.RECORDS_CONSUMED, topic, len(raw))
        try:
            yield
        finally:
            self.metrics.observe(m.BATCH_DURATION, topic, self._clock.monotonic() - started)

    def committed(self, tp: TopicPartition, step: Step, sink_seconds: float, commit_seconds: float) -> None:
        """A step that is written for good."""
        self.on_progress()
        self.metrics.set(m.LAST_PROGRESS_TIMESTAMP, {}, self._clock.time())
        if step.result is not None:
            self._count(tp, step.result)
        for envelope in step.dead:
            self.metrics.inc(
                m.DLQ_RECORDS, {"topic": tp.topic, "stage": envelope.stage, "error_class": envelope.error_type}
            )
        for rows in step.effects.topics:
            self.metrics.inc(m.RECORDS_PRODUCED, {"topic": rows.topic}, len(rows))
        self._event_time(tp, step.state)
        for aggregation, closed in step.windows_closed.items():
            self.metrics.inc(m.WINDOWS_CLOSED, {"aggregation": aggregation}, closed)
        for aggregation, ends in step.open_windows.items():
            self._open_windows[tp, aggregation] = ends
        self._set_open_windows()
        self.metrics.inc(m.WORKER_TIME, {"activity": "sink"}, sink_seconds)
        self.metrics.inc(m.WORKER_TIME, {"activity": "commit"}, commit_seconds)

    def _count(self, tp: TopicPartition, result: BatchResult) -> None:
        topic = {"topic": tp.topic}
        moved: Ledger = result.ledger
        for outcome, number in zip(LEDGER_COLUMNS[1:], astuple(moved)[1:], strict=True):
            self.metrics.inc(m.RECORDS_PROCESSED, {**topic, "outcome": outcome}, number)
        self.metrics.inc(m.LATE_RECORDS, topic, moved.late)
        self.metrics.inc(m.DUPLICATE_RECORDS, topic, moved.duplicate)
        for aggregation, deltas in result.deltas.items():
            self.metrics.inc(m.BATCH_ROWS, {"aggregation": aggregation}, deltas.num_rows)
        spent: Tally[str] = Tally()
        for stage, seconds in result.seconds.items():
            spent["quality" if stage == "validate" else "process"] += seconds  # type: ignore[assignment]
        for activity, seconds in spent.items():
            self.metrics.inc(m.WORKER_TIME, {"activity": activity}, seconds)
        self._count_rules(tp, result)

    def _count_rules(self, tp: TopicPartition, result: BatchResult) -> None:
        checked = len(result.raw)
        for rule, tally in result.rules.items():
            self.metrics.inc(m.QUALITY_RULE_EVALUATIONS, {"rule": rule, "outcome": "fail"}, tally.failures)
            self.metrics.inc(
                m.QUALITY_RULE_EVALUATIONS, {"rule": rule, "outcome": "pass"}, max(0, checked - tally.failures)
            )
            labels = {"topic": tp.topic, "rule": rule, "severity": tally.severity}
            self.metrics.inc(m.QUALITY_RULE_FAILURES, labels, tally.failures)
            if tally.failures and tally.severity != "error":
                samples = [found for _, found in tally.samples[:3]]
                log.warning(
                    "quality.rule_failed", rule=rule, severity=tally.severity, failures=tally.failures, samples=samples
                )

    def _event_time(self, tp: TopicPartition, state: PartitionState) -> None:
        if state.high_water is None:
            return
        self.metrics.set(m.LAST_RECORD_TIMESTAMP, {"topic": tp.topic}, state.high_water / 1000)
        labels = {"topic": tp.topic, "partition": str(tp.partition)}
        self.metrics.set(m.WATERMARK, labels, (state.high_water - self._delay) / 1000)

    def _set_open_windows(self) -> None:
        for aggregation in self._plan.aggregations:
            ends = [found for (_, name), found in self._open_windows.items() if name == aggregation.name]
            self.metrics.set(m.WINDOWS_OPEN, {"aggregation": aggregation.name}, len(frozenset().union(*ends)))

    def _set_paused(self, topic: str) -> None:
        reasons = Tally(reason for tp, reason in self.waiting.items() if tp.topic == topic)
        for reason in m.PAUSED_PARTITIONS.labels["reason"]:
            self.metrics.set(m.PAUSED_PARTITIONS, {"topic": topic, "reason": reason}, reasons[reason])
