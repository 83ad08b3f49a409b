"""A reporter that keeps the present values: for the live view, for tests, and as the store behind /metrics."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass

from tidegate.telemetry.metric_defs import Counter, Gauge, Histogram, Metric
from tidegate.telemetry.metrics import NO_LABELS, Labels, Values


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram's series: how many fell in each bucket (the last has no upper bound), and their sum."""

    buckets: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        return sum(self.buckets)


class MemoryReporter:
    """Present values by family and label values, in the order in which the families were first used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[Counter | Gauge, dict[Values, float]] = {}
        self._distributions: dict[Histogram, dict[Values, Distribution]] = {}

    def inc(self, metric: Counter, values: Values, by: float) -> None:
        with self._lock:
            series = self._numbers.setdefault(metric, {})
            series[values] = series.get(values, 0.0) + by

    def set(self, metric: Gauge, values: Values, value: float) -> None:
        with self._lock:
            self._numbers.setdefault(metric, {})[values] = value

    def observe(self, metric: Histogram, values: Values, value: float, count: int) -> None:
        bucket = bisect_left(metric.buckets, value)  # upper bounds are inclusive
        with self._lock:
            series = self._distributions.setdefault(metric, {})
            before = series.get(values)
            buckets = [0] * (len(metric.buckets) + 1) if before is None else list(before.buckets)
            buckets[bucket] += count
            series[values] = Distribution(tuple(buckets), (0.0 if before is None else before.sum) + value * count)

    def drop(self, metric: Gauge, values: Values) -> None:
        with self._lock:
            self._numbers.get(metric, {}).pop(values, None)

    def value(self, metric: Counter | Gauge, labels: Labels = NO_LABELS) -> float | None:
        """One series' value; None when there is none."""
        with self._lock:
            return self._numbers.get(metric, {}).get(tuple(labels[name] for name in metric.labels))

    def distribution(self, metric: Histogram, labels: Labels = NO_LABELS) -> Distribution | None:
        """One histogram's series; None when there is none."""
        with self._lock:
            return self._distributions.get(metric, {}).get(tuple(labels[name] for name in metric.labels))

    def numbers(self) -> list[tuple[Metric, dict[Values, float]]]:
        """All counters and gauges with their series, copied."""
        with self._lock:
            return [(metric, dict(series)) for metric, series in self._numbers.items()]

    def distributions(self) -> list[tuple[Histogram, dict[Values, Distribution]]]:
        """All histograms with their series, copied."""
        with self._lock:
            return [(metric, dict(series)) for metric, series in self._distributions.items()]
