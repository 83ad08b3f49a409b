"""What the worker tells the world: a committed step as metrics and log events, and which partitions wait for what."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from tidegate import __version__
from tidegate.clock import Clock, SystemClock
from tidegate.config.topics import letters_topic
from tidegate.errors import PipelineAborted, TidegateError
from tidegate.ledger import LEDGER_OUTCOMES, Ledger
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import BatchResult, PartitionState, RawBatch, RuleTally
from tidegate.stages.plan import Plan
from tidegate.stages.rules import RuleSet
from tidegate.telemetry import metric_defs as m
from tidegate.telemetry.bind import bind_resilience
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter
from transport.batch import SourceBatch
from worker.source import Step

log = structlog.get_logger(__name__)


class Observer:
    """One per worker. Called from the loop's thread, read from the HTTP server's."""

    def __init__(self, plan: Plan, clock: Clock | None = None) -> None:
        self._plan, self._clock = plan, clock or SystemClock()
        self.reporter = PrometheusReporter()
        self.metrics = Metrics(self.reporter)
        self.waiting: dict[TopicPartition, str] = {}
        self._reasons: dict[TopicPartition, str] = {}
        self._open_windows: dict[tuple[TopicPartition, str], frozenset[int]] = {}
        self._delay = plan.pipeline.event_time.delay if plan.pipeline.event_time else 0
        self._assigned: set[TopicPartition] = set()
        self.metrics.set(m.BUILD_INFO, {"version": __version__, "engine": "worker"})
        source = plan.pipeline.source
        self._sources = frozenset(source.topics if source else ())
        self._dlq_sink = {"sink": "kafka"} if letters_topic(plan.pipeline) is not None else None
        guards = ["store", *(f"handler:{handler.call}" for handler in plan.pipeline.handlers)]
        self._rules = RuleSet(plan.pipeline, plan.decoded).names
        self.metrics.prepare(
            {
                "topic": source.topics if source else (),
                "aggregation": [a.name for a in plan.aggregations],
                "rule": self._rules,
                "breaker": guards,
                "target": guards,
            }
        )
        self._in_progress: Tally[TopicPartition] = Tally()
        bind_resilience(self.metrics)

    # Partitions

    def assigned(self, tps: Iterable[TopicPartition]) -> None:
        self._assigned |= set(tps)
        self.metrics.inc(m.REBALANCES)
        self._set_assigned()

    def revoked(self, tps: Iterable[TopicPartition]) -> None:
        self._assigned -= set(tps)
        self._set_assigned()
        for tp in tps:
            self.resumed(tp)
            labels = {"topic": tp.topic, "partition": str(tp.partition)}
            self._in_progress.pop(tp, None)
            self._set_in_progress(tp.topic)
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

    def paused(self, tp: TopicPartition, reason: str, why: str | None = None) -> None:
        """`reason`: one of the metric's; `why`: more of it, for people."""
        self.waiting[tp], self._reasons[tp] = why or reason, reason
        self._set_paused(tp.topic)

    def resumed(self, tp: TopicPartition) -> None:
        if self.waiting.pop(tp, None) is not None:
            del self._reasons[tp]
            self._set_paused(tp.topic)

    def told_the_group(self, ok: bool) -> None:
        """How far the work is done; `ok`: the broker has taken it."""
        self.metrics.inc(m.OFFSET_COMMITS, {"outcome": "ok" if ok else "failed"})

    def _set_assigned(self) -> None:
        self.metrics.set(m.ASSIGNED_PARTITIONS, {}, len(self._assigned))
        self._set_active()

    def _set_active(self) -> None:
        active = any(self._reasons.get(tp) != "held" for tp in self._assigned)
        self.metrics.set(m.ENGINE_ACTIVE, {"engine": "stream"}, int(active))

    def lag(self, tp: TopicPartition, records: int) -> None:
        labels = {"consumergroup": self._plan.pipeline.pipeline_id, "topic": tp.topic, "partition": str(tp.partition)}
        self.metrics.set(m.CONSUMER_LAG, labels, records)

    # Batches

    def offered(self, tp: TopicPartition, batch: SourceBatch) -> None:
        """A batch has been read, and waits for its partition."""
        if tp.topic in self._sources:
            self.metrics.inc(m.RECORDS_CONSUMED, {"topic": tp.topic}, len(batch))
            self._in_progress[tp] += len(batch)
            self._set_in_progress(tp.topic)

    def finished(self, tp: TopicPartition, batch: SourceBatch) -> None:
        """A batch is committed."""
        if tp.topic in self._sources:
            seconds = self._clock.monotonic() - batch.fetched
            self.metrics.observe(m.RECORD_PROCESSING_DURATION, {"topic": tp.topic}, seconds, count=len(batch))
        self.dropped(tp, batch)

    def dropped(self, tp: TopicPartition, batch: SourceBatch) -> None:
        """A batch is no longer in progress; one that was not committed is read again."""
        if tp.topic in self._sources:
            self._in_progress[tp] -= len(batch)
            self._set_in_progress(tp.topic)

    @contextmanager
    def batch(self, tp: TopicPartition, raw: RawBatch) -> Iterator[None]:
        """Around the work on one batch: its duration, and whether a rule stopped it."""
        topic, started = {"topic": tp.topic}, self._clock.monotonic()
        try:
            yield
        except PipelineAborted:
            self.metrics.inc(m.QUALITY_ABORTS, topic)
            raise
        finally:
            self.metrics.observe(m.BATCH_DURATION, topic, self._clock.monotonic() - started)

    @contextmanager
    def producing(self, tp: TopicPartition, step: Step) -> Iterator[None]:
        """Around a step's transaction: how long it took if it has dead letters, and how it failed."""
        dead = self._dlq_sink if step.dead else None
        started = self._clock.monotonic()
        try:
            yield
        except TidegateError as error:
            self.metrics.inc(m.PRODUCE_ERRORS, {"topic": tp.topic, "error_type": type(error).__name__})
            if dead is not None:
                self.metrics.inc(m.DLQ_PUBLISH_ERRORS, dead)
            raise
        if dead is not None:
            self.metrics.observe(m.DLQ_PUBLISH_DURATION, dead, self._clock.monotonic() - started)

    def committed(self, tp: TopicPartition, step: Step, sink_seconds: float, commit_seconds: float) -> None:
        """A step that is written for good."""
        self.metrics.set(m.LAST_PROGRESS_TIMESTAMP, {}, self._clock.time())
        if step.result is not None:
            self._count(tp, step.result)
        for kind, letters in Tally(letter.kind for letter in step.dead).items():
            labels = {"topic": tp.topic, "stage": kind.stage, "error_class": kind.error_type}
            self.metrics.inc(m.DLQ_RECORDS, labels, letters)
        for rows in step.effects.topics:
            self.metrics.inc(m.RECORDS_PRODUCED, {"topic": rows.topic}, len(rows))
        self._event_time(tp, step.state)
        for aggregation, closed in step.windows_closed.items():
            self.metrics.inc(m.WINDOWS_CLOSED, {"aggregation": aggregation}, closed)
        for aggregation, ends in step.open_windows.items():
            self._open_windows[tp, aggregation] = ends
        self._set_open_windows()
        self.metrics.inc(m.WORKER_TIME, {"activity": "dlq"}, step.dlq_seconds)
        self.metrics.inc(m.WORKER_TIME, {"activity": "sink"}, sink_seconds)
        self.metrics.inc(m.WORKER_TIME, {"activity": "commit"}, commit_seconds)

    def _count(self, tp: TopicPartition, result: BatchResult) -> None:
        topic = {"topic": tp.topic}
        moved: Ledger = result.ledger
        for outcome in LEDGER_OUTCOMES:
            self.metrics.inc(m.RECORDS_PROCESSED, {**topic, "outcome": outcome}, getattr(moved, outcome))
        self.metrics.inc(m.LATE_RECORDS, topic, moved.late)
        self.metrics.inc(m.DUPLICATE_RECORDS, topic, moved.duplicate)
        for aggregation, deltas in result.deltas.items():
            self.metrics.inc(m.BATCH_ROWS, {"aggregation": aggregation}, deltas.num_rows)
        spent: Tally[str] = Tally()
        for stage, seconds in result.seconds.items():
            spent["quality" if stage == "validate" else "process"] += seconds  # type: ignore[assignment]  # one of two literal keys
        for activity, seconds in spent.items():
            self.metrics.inc(m.WORKER_TIME, {"activity": activity}, seconds)
        self._count_rules(tp, result)

    def _count_rules(self, tp: TopicPartition, result: BatchResult) -> None:
        failed = Tally([rejection.stage for rejection in result.rejected])
        checked = len(result.raw) - result.repeats - result.ledger.skipped - failed[Stage.DECODE]
        for verdict, records in (("valid", checked - failed[Stage.VALIDATE]), ("rejected", failed[Stage.VALIDATE])):
            self.metrics.inc(m.QUALITY_RECORDS, {"topic": tp.topic, "verdict": verdict}, records)
        if self._rules:
            self.metrics.observe(m.QUALITY_CHECK_DURATION, {}, result.seconds.get(Stage.VALIDATE, 0.0))
        for rule, tally in result.rules.items():
            self.metrics.inc(m.QUALITY_RULE_EVALUATIONS, {"rule": rule, "outcome": "fail"}, tally.failures)
            self.metrics.inc(m.QUALITY_RULE_EVALUATIONS, {"rule": rule, "outcome": "pass"}, checked - tally.failures)
            labels = {"topic": tp.topic, "rule": rule, "severity": tally.severity}
            self.metrics.inc(m.QUALITY_RULE_FAILURES, labels, tally.failures)
            if tally.failures and not tally.rejects:  # else each is a dead letter, which says more
                _say_what_failed(tp, rule, tally)

    def merged(self, expired: Mapping[str, int]) -> None:
        """A batch of partials is committed. `expired`: aggregation → totals that are not given any more."""
        for aggregation, totals in expired.items():
            self.metrics.inc(m.RESULTS_EXPIRED, {"aggregation": aggregation}, totals)

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

    def _set_in_progress(self, topic: str) -> None:
        records = sum(count for tp, count in self._in_progress.items() if tp.topic == topic)
        self.metrics.set(m.RECORDS_IN_PROGRESS, {"topic": topic}, records)

    def _set_paused(self, topic: str) -> None:
        reasons = Tally(reason for tp, reason in self._reasons.items() if tp.topic == topic)
        for reason in m.PAUSED_PARTITIONS.labels["reason"]:
            self.metrics.set(m.PAUSED_PARTITIONS, {"topic": topic, "reason": reason}, reasons[reason])
        self._set_active()


def _say_what_failed(tp: TopicPartition, rule: str, tally: RuleTally) -> None:
    log.warning(
        "quality.rule_failed",
        topic=tp.topic,
        partition=tp.partition,
        rule=rule,
        severity=tally.severity,
        failures=tally.failures,
        samples=[f"offset {offset}: {found}" for offset, found in tally.samples],
    )
