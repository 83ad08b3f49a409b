"""The metrics: the only place of their names. docs/metrics.md is rendered from here (`python -m
tidegate.telemetry.reference`).

Base units (seconds, bytes), counters end in `_total`, moments are exported as timestamps and not as ages. `topic` is
always a source topic. No key, offset, record id or message text is ever a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.record import Stage

PREFIX = "tidegate_"

OPEN: tuple[str, ...] = ()
"""A label whose values are not known beforehand: what is beyond a family's cap is counted as `other`."""

OTHER = "other"

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds, as OpenTelemetry advises for messaging."""

_PARTITIONS = 2000  # series of a family with a partition label; a topic has up to a few hundred partitions


@dataclass(frozen=True, eq=False)
class Metric:
    """One family. `labels`: each label's closed list of values, or OPEN. `cap`: series at most; the rest is folded."""

    name: str
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cap: int = 100

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True, eq=False)
class Counter(Metric):
    """Only ever grows."""


@dataclass(frozen=True, eq=False)
class Gauge(Metric):
    """Goes up and down."""


@dataclass(frozen=True, eq=False)
class Histogram(Metric):
    """Counts observations in buckets (upper bounds)."""

    buckets: tuple[float, ...] = DURATION_BUCKETS


# What runs.
BUILD_INFO = Gauge("tidegate_build_info", "Always 1; says which version and engine.", {"version": OPEN, "engine": OPEN})

# A record's way. For each topic the outcomes of records_processed add up to records_consumed less what is in progress;
# what a rebalance took away before it was committed is consumed once more by the next owner.
RECORDS_CONSUMED = Counter("tidegate_records_consumed_total", "Records read.", {"topic": OPEN})
RECORDS_PROCESSED = Counter(
    "tidegate_records_processed_total",
    "Records whose batch is committed, by where the ledger has them.",
    {"topic": OPEN, "outcome": ("accepted", "dead_lettered", "late", "deferred", "duplicate", "filtered", "skipped")},
    cap=700,
)
RECORDS_IN_PROGRESS = Gauge("tidegate_records_in_progress", "Records read and not yet committed.", {"topic": OPEN})
RECORDS_PRODUCED = Counter(
    "tidegate_records_produced_total", "Records written to Kafka (here `topic` is the target).", {"topic": OPEN}
)
PRODUCE_ERRORS = Counter(
    "tidegate_produce_errors_total", "Transactions that failed.", {"topic": OPEN, "error_type": OPEN}
)
RECORD_PROCESSING_DURATION = Histogram(
    "tidegate_record_processing_duration_seconds",
    "From the fetch that read a record to the commit of its batch; counts records, not batches.",
    {"topic": OPEN},
)
BATCH_DURATION = Histogram(
    "tidegate_batch_duration_seconds",
    "Work on one batch: stages, writes and commit, without the wait in the queue before.",
    {"topic": OPEN},
)
BATCH_ROWS = Counter(
    "tidegate_batch_rows_total", "State rows that batches wrote, by aggregation.", {"aggregation": OPEN}
)
WORKER_TIME = Counter(
    "tidegate_worker_time_seconds_total",
    "Where the worker's time goes: says at a glance what holds it up.",
    {"activity": ("process", "quality", "sink", "retry_wait", "dlq", "commit")},
)
DUPLICATE_RECORDS = Counter(
    "tidegate_duplicate_records_total", "Records left out by dedupe, and replays sent a second time.", {"topic": OPEN}
)

# The consumer.
CONSUMER_LAG = Gauge(
    "tidegate_consumer_lag_records",
    "Records between what is applied and the end of the log.",
    {"consumergroup": OPEN, "topic": OPEN, "partition": OPEN},
    cap=_PARTITIONS,
)
LAST_RECORD_TIMESTAMP = Gauge(
    "tidegate_consumer_last_record_timestamp_seconds",
    "Event time of the last record processed; its age is time() minus this.",
    {"topic": OPEN},
)
LAST_PROGRESS_TIMESTAMP = Gauge(
    "tidegate_consumer_last_progress_timestamp_seconds",
    "When a batch was last committed, by the wall clock; the stall is time() minus this.",
)
REBALANCES = Counter("tidegate_consumer_rebalances_total", "Times that partitions were assigned anew.")
OFFSET_COMMITS = Counter(
    "tidegate_offset_commits_total",
    "Attempts to tell the consumer group how far the work is done. For monitoring: a worker starts from its state.",
    {"outcome": ("ok", "failed")},
)
ENGINE_ACTIVE = Gauge(
    "tidegate_engine_active",
    "1 while this process applies records: a worker that has partitions and is not held off by a catch-up, or a batch run from "
    "its first micro-batch on.",
    {"engine": ("stream", "batch")},
)
ASSIGNED_PARTITIONS = Gauge("tidegate_consumer_assigned_partitions", "Partitions that this worker has.")
PAUSED_PARTITIONS = Gauge(
    "tidegate_consumer_paused_partitions",
    "Partitions that are not fetched from, and why.",
    {"topic": OPEN, "reason": ("breaker", "outage", "fenced", "held")},
    cap=300,
)

# Event time.
WATERMARK = Gauge(
    "tidegate_watermark_timestamp_seconds",
    "The partition's watermark: largest event time seen, less the delay.",
    {"topic": OPEN, "partition": OPEN},
    cap=_PARTITIONS,
)
WINDOWS_OPEN = Gauge("tidegate_windows_open", "Windows that the watermark has not passed.", {"aggregation": OPEN})
WINDOWS_CLOSED = Counter(
    "tidegate_windows_closed_total", "Windows that the watermark has passed.", {"aggregation": OPEN}
)
RESULTS_EXPIRED = Counter(
    "tidegate_results_expired_total",
    "Totals over partitions that Kafka was not given, since their window had been forgotten when a partition that was idle "
    "woke up. A database has them whole; a longer eventTime.retention keeps windows until then.",
    {"aggregation": OPEN},
)
RESULTS_PUBLISHED = Counter(
    "tidegate_results_published_total",
    "Results that a batch run has given to a sink beside the database; a worker's are in records_produced.",
    {"sink": OPEN, "aggregation": OPEN},
)
WINDOWS_TIMED_OUT = Counter(
    "tidegate_windows_timed_out_total",
    "Windows that have left the database for good (eventTime.stateTimeout), by aggregation.",
    {"aggregation": OPEN},
)
LATE_RECORDS = Counter("tidegate_late_records_total", "Records that are late for all their windows.", {"topic": OPEN})

# State.
STATE_RESTORED_RECORDS = Counter("tidegate_state_restored_records_total", "Changelog records read on assignment.")
STATE_RESTORE_SECONDS = Gauge("tidegate_state_restore_seconds", "How long the last restore of state took.")

# Retries and breakers (`target` and `breaker`: the name of the guarded dependency).
RETRY_CALLS = Counter(
    "tidegate_retry_calls_total",
    "Guarded calls by how they ended.",
    {
        "target": OPEN,
        "kind": ("successful_without_retry", "successful_with_retry", "failed_without_retry", "failed_with_retry"),
    },
)
RETRY_ATTEMPTS = Counter(
    "tidegate_retry_attempts_total",
    "Attempts that failed and were followed by another.",
    {"target": OPEN, "error_type": OPEN},
)
RETRY_WAIT = Counter("tidegate_retry_wait_seconds_total", "Time waited between attempts.", {"target": OPEN})
BREAKER_STATE = Gauge(
    "tidegate_breaker_state",
    "1 for the state that the breaker is in, 0 for the others.",
    {"breaker": OPEN, "state": ("closed", "open", "half_open", "disabled")},
)
BREAKER_CALLS = Counter(
    "tidegate_breaker_calls_total",
    "Calls through the breaker; ignored ones say nothing about the dependency.",
    {"breaker": OPEN, "outcome": ("success", "failure", "ignored", "rejected")},
)
BREAKER_TRANSITIONS = Counter(
    "tidegate_breaker_transitions_total",
    "Changes of the breaker's state.",
    {"breaker": OPEN, "from": ("closed", "open", "half_open"), "to": ("closed", "open", "half_open")},
    cap=300,
)
BREAKER_OPENED_TIMESTAMP = Gauge(
    "tidegate_breaker_opened_timestamp_seconds", "When the breaker last opened.", {"breaker": OPEN}
)

# Dead letters.
DLQ_RECORDS = Counter(
    "tidegate_dlq_records_total",
    "Dead letters, by the stage that failed and the type of the first reason.",
    {"topic": OPEN, "stage": tuple(stage.value for stage in Stage), "error_class": OPEN},
    cap=500,
)
DLQ_PUBLISH_ERRORS = Counter(
    "tidegate_dlq_publish_errors_total",
    "Writes of dead letters that failed; on Kafka progress stops until they succeed, for S3 they wait in the topic.",
    {"sink": ("kafka", "s3", "log")},
)
DLQ_PUBLISH_DURATION = Histogram(
    "tidegate_dlq_publish_duration_seconds",
    "Writing dead letters: on Kafka, a batch's transaction that they are part of; in S3, an object.",
    {"sink": ("kafka", "s3", "log")},
)
DLQ_UPLOADED = Counter(
    "tidegate_dlq_uploaded_records_total",
    "Dead letters whose object is in S3, by the topic they came through; one written again counts again.",
    {"topic": OPEN},
)

DLQ_RETRIES = Counter(
    "tidegate_dlq_retries_total", "Delayed retries that were sent back, by their source topic.", {"topic": OPEN}
)

# The index of dead letters (here `topic` is the dead-letter topic).
DLQ_INDEXED = Counter("tidegate_dlq_indexed_records_total", "Dead letters that are new in the index.", {"topic": OPEN})
DLQ_INDEX_DURATION = Histogram("tidegate_dlq_index_duration_seconds", "Writing one batch of dead letters to the index.")
DLQ_OPEN_RECORDS = Gauge("tidegate_dlq_open_records", "Dead letters that nobody has resolved.")
DLQ_GROUPS = Gauge(
    "tidegate_dlq_groups", "Groups of dead letters, by their state.", {"state": ("open", "acknowledged", "resolved")}
)
DLQ_OLDEST_OPEN_TIMESTAMP = Gauge(
    "tidegate_dlq_oldest_open_record_timestamp_seconds",
    "Kafka's timestamp of the oldest open dead letter, from which its topic's retention counts.",
    {"topic": OPEN},
)
DLQ_EXPIRING_RECORDS = Gauge(
    "tidegate_dlq_expiring_records",
    "Open dead letters that the topic's retention deletes within deadLetters.expiryWarning.",
    {"topic": OPEN},
)
REPLAY_STATES = ("running", "paused", "stopped", "cancelling", "cancelled", "done")
DLQ_REPLAYS = Counter(
    "tidegate_dlq_replays_total",
    "Letters of replay jobs, by what became of them.",
    {"outcome": ("ok", "failed_again", "loop", "sent", "parked", "invalid", "gone", "cancelled")},
)
DLQ_REPLAY_JOBS = Gauge("tidegate_dlq_replay_jobs", "Replay jobs, by their state.", {"state": REPLAY_STATES})

# Rules.
QUALITY_RECORDS = Counter(
    "tidegate_quality_records_total",
    "Records that the rules were applied to, by the verdict; warnings are in quality_rule_failures.",
    {"topic": OPEN, "verdict": ("valid", "rejected")},
    cap=200,
)
QUALITY_RULE_EVALUATIONS = Counter(
    "tidegate_quality_rule_evaluations_total",
    "Records that a rule was applied to, by its answer.",
    {"rule": OPEN, "outcome": ("pass", "fail")},
    cap=200,
)
QUALITY_RULE_FAILURES = Counter(
    "tidegate_quality_rule_failures_total",
    "Records that failed a rule.",
    {"topic": OPEN, "rule": OPEN, "severity": ("error", "warning", "info")},
    cap=300,
)
QUALITY_ABORTS = Counter("tidegate_quality_aborts_total", "Stops by a rule with onFailure abort.", {"topic": OPEN})
QUALITY_CHECK_DURATION = Histogram("tidegate_quality_check_duration_seconds", "Applying all rules to one batch.")

# The metrics themselves.
FOLDED_LABELS = Counter(
    "tidegate_metrics_folded_labels_total",
    "Samples whose labels were beyond the family's cap: counted as `other` (counters, histograms) or dropped (gauges).",
    {"metric": OPEN},
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All families, in the order above."""
