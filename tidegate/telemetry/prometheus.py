"""The Prometheus reporter: the present values as a collector in a registry of its own.

prometheus_client's own Counter and Histogram are not used: they add a `_created` series to each, cannot count a value
several times, and cannot forget what was never set (a gauge without labels is exported as 0 from the beginning).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder

from tidegate.telemetry.memory import Distribution, MemoryReporter
from tidegate.telemetry.metric_defs import Counter, Histogram, Metric
from tidegate.telemetry.metrics import Values


class PrometheusReporter(MemoryReporter):
    """Renders the process's metrics, with prometheus_client's `process_*` (CPU, memory, files) beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def collect(self) -> Iterator[Family]:
        """What prometheus_client asks a collector for."""
        for metric, numbers in self.numbers():
            yield _number_family(metric, numbers)
        for histogram, distributions in self.distributions():
            yield _histogram_family(histogram, distributions)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text for /metrics and its content type, in the format that the `Accept` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


def _number_family(metric: Metric, series: dict[Values, float]) -> Family:
    family_type = CounterMetricFamily if isinstance(metric, Counter) else GaugeMetricFamily
    family = family_type(metric.name, metric.help, labels=list(metric.labels))
    for values, value in series.items():
        family.add_metric(values, value)
    return family


def _histogram_family(metric: Histogram, series: dict[Values, Distribution]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=list(metric.labels))
    bounds = [*(str(float(bound)) for bound in metric.buckets), "+Inf"]
    for values, distribution in series.items():
        cumulative = accumulate(distribution.buckets)
        family.add_metric(values, list(zip(bounds, map(float, cumulative), strict=True)), distribution.sum)
    return family
