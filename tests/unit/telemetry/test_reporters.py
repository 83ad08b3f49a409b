"""One suite for what keeps metrics: the one in memory, and the text that Prometheus reads."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tidegate.telemetry.memory import MemoryReporter
from tidegate.telemetry.metric_defs import (
    BATCH_DURATION,
    CONSUMER_LAG,
    LAST_PROGRESS_TIMESTAMP,
    REBALANCES,
    RECORDS_CONSUMED,
    Counter,
    Gauge,
    Histogram,
)
from tidegate.telemetry.metrics import Labels, Metrics
from tidegate.telemetry.prometheus import PrometheusReporter

FLIGHTS = {"topic": "flights"}
LAG_0 = {"consumergroup": "delays", "topic": "flights", "partition": "0"}
LAG_1 = {**LAG_0, "partition": "1"}


class ReporterContract(ABC):
    """What holds for every reporter whose values can be read back."""

    reporter: MemoryReporter

    @pytest.fixture(autouse=True)
    def _make(self) -> None:
        self.reporter = self.make()
        self.metrics = Metrics(self.reporter)

    @abstractmethod
    def make(self) -> MemoryReporter: ...

    @abstractmethod
    def value(self, metric: Counter | Gauge, labels: Labels) -> float | None:
        """The present value, or None."""

    @abstractmethod
    def buckets(self, metric: Histogram, labels: Labels) -> dict[float, float]:
        """Cumulative counts by upper bound."""

    @abstractmethod
    def sum(self, metric: Histogram, labels: Labels) -> float | None: ...

    def test_counter_adds_up(self) -> None:
        """A counter adds up, by one where nothing else is said, apart for each set of labels."""
        self.metrics.inc(RECORDS_CONSUMED, FLIGHTS, 512)
        self.metrics.inc(RECORDS_CONSUMED, FLIGHTS)
        self.metrics.inc(RECORDS_CONSUMED, {"topic": "weather"}, 2.5)
        assert self.value(RECORDS_CONSUMED, FLIGHTS) == 513
        assert self.value(RECORDS_CONSUMED, {"topic": "weather"}) == 2.5

    def test_gauge_is_set(self) -> None:
        """A gauge has the value it was last given."""
        self.metrics.set(CONSUMER_LAG, LAG_0, 10)
        self.metrics.set(CONSUMER_LAG, LAG_0, 3)
        assert self.value(CONSUMER_LAG, LAG_0) == 3

    def test_gauge_is_dropped(self) -> None:
        """A gauge's series can be forgotten without touching the others, and can come again."""
        self.metrics.set(CONSUMER_LAG, LAG_0, 10)
        self.metrics.set(CONSUMER_LAG, LAG_1, 20)
        self.metrics.drop(CONSUMER_LAG, LAG_0)
        self.metrics.drop(CONSUMER_LAG, LAG_0)
        assert self.value(CONSUMER_LAG, LAG_0) is None
        assert self.value(CONSUMER_LAG, LAG_1) == 20
        self.metrics.set(CONSUMER_LAG, LAG_0, 1)
        assert self.value(CONSUMER_LAG, LAG_0) == 1

    def test_without_labels(self) -> None:
        """A family without labels is one series, which does not exist before its first value."""
        assert self.value(LAST_PROGRESS_TIMESTAMP, {}) is None
        self.metrics.set(LAST_PROGRESS_TIMESTAMP, value=1e9)
        self.metrics.inc(REBALANCES)
        assert self.value(LAST_PROGRESS_TIMESTAMP, {}) == 1e9
        assert self.value(REBALANCES, {}) == 1

    def test_histogram(self) -> None:
        """A histogram counts in buckets whose upper bounds are inclusive, and sums up."""
        for seconds in (0.005, 0.0051, 0.3, 99):
            self.metrics.observe(BATCH_DURATION, FLIGHTS, seconds)
        buckets = self.buckets(BATCH_DURATION, FLIGHTS)
        assert (buckets[0.005], buckets[0.01], buckets[0.25], buckets[0.5]) == (1, 2, 2, 3)
        assert (buckets[10.0], buckets[float("inf")]) == (3, 4)
        assert self.sum(BATCH_DURATION, FLIGHTS) == pytest.approx(99.3101)

    def test_weighted_observation(self) -> None:
        """One observation can stand for many records."""
        self.metrics.observe(BATCH_DURATION, FLIGHTS, 0.02, count=8192)
        assert self.buckets(BATCH_DURATION, FLIGHTS)[0.025] == 8192
        assert self.sum(BATCH_DURATION, FLIGHTS) == pytest.approx(163.84)

    def test_prepared_zero(self) -> None:
        """Prepared series are there with zero before anything happened."""
        self.metrics.prepare({"topic": ["flights"]})
        assert self.value(RECORDS_CONSUMED, FLIGHTS) == 0
        assert self.buckets(BATCH_DURATION, FLIGHTS)[float("inf")] == 0

    def test_label_values_survive(self) -> None:
        """Label values with quotes, backslashes, line ends and other scripts come back as they were."""
        odd = {"topic": 'a"b\\c\nd-航班'}
        self.metrics.inc(RECORDS_CONSUMED, odd)
        assert self.value(RECORDS_CONSUMED, odd) == 1

    def count_to_500(self) -> None:
        for _ in range(500):
            self.metrics.inc(RECORDS_CONSUMED, FLIGHTS)

    def test_threads(self) -> None:
        """No increment is lost between threads."""
        threads = [threading.Thread(target=self.count_to_500) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.value(RECORDS_CONSUMED, FLIGHTS) == 4000


class TestMemory(ReporterContract):
    def make(self) -> MemoryReporter:
        return MemoryReporter()

    def value(self, metric: Counter | Gauge, labels: Labels) -> float | None:
        return self.reporter.value(metric, labels)

    def buckets(self, metric: Histogram, labels: Labels) -> dict[float, float]:
        found = self.reporter.distribution(metric, labels)
        assert found is not None
        total, cumulative = 0, {}
        for bound, count in zip([*metric.buckets, float("inf")], found.buckets, strict=True):
            total += count
            cumulative[bound] = float(total)
        assert found.count == total
        return cumulative

    def sum(self, metric: Histogram, labels: Labels) -> float | None:
        found = self.reporter.distribution(metric, labels)
        return None if found is None else found.sum


class TestPrometheus(ReporterContract):
    """Read back from the rendered text, by Prometheus' own parser."""

    reporter: PrometheusReporter

    def make(self) -> MemoryReporter:
        return PrometheusReporter()

    def samples(self, name: str, labels: Labels) -> list[tuple[dict[str, str], float]]:
        text = self.reporter.render()[0].decode()
        return [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def value(self, metric: Counter | Gauge, labels: Labels) -> float | None:
        found = self.samples(metric.name, labels)
        return found[0][1] if found else None

    def buckets(self, metric: Histogram, labels: Labels) -> dict[float, float]:
        return {float(found["le"]): value for found, value in self.samples(f"{metric.name}_bucket", labels)}

    def sum(self, metric: Histogram, labels: Labels) -> float | None:
        return self.samples(f"{metric.name}_sum", labels)[0][1]

    def test_text(self) -> None:
        """The text names kind and meaning of each family, uses the names as defined, and has no `_created` series."""
        self.metrics.inc(RECORDS_CONSUMED, FLIGHTS, 512)
        text = self.reporter.render()[0].decode()
        assert "# HELP tidegate_records_consumed_total Records read.\n" in text
        assert "# TYPE tidegate_records_consumed_total counter\n" in text
        assert 'tidegate_records_consumed_total{topic="flights"} 512.0\n' in text
        assert "_created" not in text

    def test_open_metrics(self) -> None:
        """A scraper that asks for OpenMetrics gets it."""
        body, content_type = self.reporter.render("application/openmetrics-text;version=1.0.0")
        assert content_type.startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")

    def test_process_metrics(self) -> None:
        """CPU and memory of the process are served beside tidegate's own metrics."""
        assert b"process_resident_memory_bytes" in self.reporter.render()[0]


def test_several_reporters() -> None:
    """Every reporter is told of everything."""
    left, right = MemoryReporter(), PrometheusReporter()
    metrics = Metrics(left, right)
    metrics.inc(RECORDS_CONSUMED, FLIGHTS)
    metrics.set(CONSUMER_LAG, LAG_0, 5)
    assert left.value(RECORDS_CONSUMED, FLIGHTS) == right.value(RECORDS_CONSUMED, FLIGHTS) == 1
    assert left.value(CONSUMER_LAG, LAG_0) == right.value(CONSUMER_LAG, LAG_0) == 5
