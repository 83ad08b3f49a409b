"""What the worker says of itself on /metrics, in the few numbers that the view shows."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from tidegate.telemetry.metric_defs import (
    BREAKER_STATE,
    CONSUMER_LAG,
    DLQ_RECORDS,
    RECORDS_PROCESSED,
    WATERMARK,
    WINDOWS_CLOSED,
    WINDOWS_OPEN,
    Metric,
)

_TIMEOUT = 2.0  # s; the worker answers between two batches


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """`watermark`: seconds since the epoch, None before the first record."""

    lag: int
    watermark: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at the worker."""

    processed: dict[str, int] = field(default_factory=dict)
    """Records by outcome, the words of the ledger."""
    partitions: dict[int, PartitionProgress] = field(default_factory=dict)
    windows_open: dict[str, int] = field(default_factory=dict)
    windows_closed: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[tuple[str, str], int] = field(default_factory=dict)
    """By stage and error type."""
    breakers: dict[str, str] = field(default_factory=dict)
    """The state each breaker is in."""

    @property
    def records(self) -> int:
        return sum(self.processed.values())

    @property
    def lag(self) -> int:
        return sum(progress.lag for progress in self.partitions.values())


def read_metrics(url: str, topic: str) -> Snapshot | None:
    """The worker's numbers for one source topic; None when it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            return parse_metrics(answer.read().decode(), topic)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None


def parse_metrics(text: str, topic: str) -> Snapshot:
    """The numbers in Prometheus' text form."""
    values: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("topic", topic) == topic:
                values[sample.name][tuple(sorted(sample.labels.items()))] = sample.value

    def by(metric: Metric, *labels: str) -> dict[tuple[str, ...], float]:
        return {tuple(dict(key)[label] for label in labels): value for key, value in values[metric.name].items()}

    watermarks = by(WATERMARK, "partition")
    return Snapshot(
        processed={outcome: int(value) for (outcome,), value in by(RECORDS_PROCESSED, "outcome").items()},
        partitions={
            int(key[0]): PartitionProgress(int(lag), watermarks.get(key))
            for key, lag in sorted(by(CONSUMER_LAG, "partition").items(), key=lambda item: int(item[0][0]))
        },
        windows_open={name: int(value) for (name,), value in by(WINDOWS_OPEN, "aggregation").items()},
        windows_closed={name: int(value) for (name,), value in by(WINDOWS_CLOSED, "aggregation").items()},
        dead_letters={
            (stage, error): int(value)
            for (stage, error), value in by(DLQ_RECORDS, "stage", "error_class").items()
            if value
        },
        breakers={name: state for (name, state), value in by(BREAKER_STATE, "breaker", "state").items() if value},
    )
