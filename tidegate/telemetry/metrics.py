"""Metrics: one object per process, told in terms of tidegate/telemetry/metric_defs.py; reporters bring them out.

    metrics = Metrics(reporter)
    metrics.inc(RECORDS_CONSUMED, {"topic": "flights"}, 512)

A family holds a limited number of series. Beyond it a counter or histogram goes on under `other` and a gauge is
dropped, and `tidegate_metrics_folded_labels_total` says how often: a wild label can cost accuracy, never memory.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Protocol

import structlog

from tidegate.telemetry.metric_defs import FOLDED_LABELS, METRICS, OTHER, Counter, Gauge, Histogram, Metric

log = structlog.get_logger(__name__)

Labels = Mapping[str, str]
Values = tuple[str, ...]
"""Label values in the order of the definition."""

NO_LABELS: Labels = {}


class Reporter(Protocol):
    """Where metrics go. Called from any thread; must not block."""

    def inc(self, metric: Counter, values: Values, by: float) -> None:
        """Add `by` to a counter; 0 makes the series exist."""

    def set(self, metric: Gauge, values: Values, value: float) -> None:
        """Set a gauge."""

    def observe(self, metric: Histogram, values: Values, value: float, count: int) -> None:
        """Count `value` `count` times; 0 makes the series exist."""

    def drop(self, metric: Gauge, values: Values) -> None:
        """Forget a gauge's series."""


class Metrics:
    """What the process measures. Safe under threads.

    Raises ValueError for labels that the definition does not know: that is a bug, and shows in the first test.
    """

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters
        self._lock = threading.Lock()
        self._series: dict[Metric, set[Values]] = {metric: set() for metric in METRICS}
        self._refreshers: tuple[Callable[[], None], ...] = ()

    def inc(self, metric: Counter, labels: Labels = NO_LABELS, value: float = 1.0) -> None:
        """Add `value` (not negative) to a counter."""
        if value < 0:
            raise ValueError(f"{metric.name}: a counter only grows, not by {value}")
        values = self._admit(metric, labels)
        if values is not None:
            for reporter in self._reporters:
                reporter.inc(metric, values, value)

    def set(self, metric: Gauge, labels: Labels = NO_LABELS, value: float = 1.0) -> None:
        """Set a gauge."""
        values = self._admit(metric, labels)
        if values is not None:
            for reporter in self._reporters:
                reporter.set(metric, values, value)

    def observe(self, metric: Histogram, labels: Labels = NO_LABELS, value: float = 0.0, *, count: int = 1) -> None:
        """Count `value` in a histogram, `count` times."""
        values = self._admit(metric, labels)
        if values is not None:
            for reporter in self._reporters:
                reporter.observe(metric, values, value, count)

    def drop(self, metric: Gauge, labels: Labels) -> None:
        """Forget a gauge's series: a partition that moved away has no lag here."""
        values = _values(metric, labels)
        with self._lock:
            self._series[metric].discard(values)
        for reporter in self._reporters:
            reporter.drop(metric, values)

    def prepare(self, known: Mapping[str, Iterable[str]]) -> None:
        """Make the zero series of all counters and histograms whose labels are closed or in `known` (label → values).

        Without them the first error of a kind is invisible to `rate()`, and an alert cannot tell zero from absent.
        """
        for metric in METRICS:
            choices = [values or tuple(known.get(name, ())) for name, values in metric.labels.items()]
            for values in product(*choices):
                labels = dict(zip(metric.labels, values, strict=True))
                if isinstance(metric, Counter):
                    self.inc(metric, labels, 0)
                elif isinstance(metric, Histogram):
                    self.observe(metric, labels, 0.0, count=0)

    def before_export(self, refresh: Callable[[], None]) -> Callable[[], None]:
        """Call `refresh` before metrics are read, for what is computed and not counted. Returns what ends that."""
        self._refreshers = (*self._refreshers, refresh)

        def remove() -> None:
            self._refreshers = tuple(other for other in self._refreshers if other is not refresh)

        return remove

    def refresh(self) -> None:
        """Bring computed metrics up to date.

        What one source raises is logged, and the others are asked all the same.
        """
        for refresh in self._refreshers:
            try:
                refresh()
            except Exception as error:
                log.error("metrics.refresh_failed", exception="".join(traceback.format_exception(error)))

    def _admit(self, metric: Metric, labels: Labels) -> Values | None:
        """The series for these labels: its own, the one of `other`, or none."""
        values = _values(metric, labels)
        series = self._series[metric]
        if values in series:
            return values
        _check_closed_labels(metric, values)
        with self._lock:
            if len(series) < metric.cap:
                series.add(values)
                return values
        self.inc(FOLDED_LABELS, {"metric": metric.name})
        if isinstance(metric, Gauge):
            return None
        return tuple(value if closed else OTHER for value, closed in zip(values, metric.labels.values(), strict=True))


def _values(metric: Metric, labels: Labels) -> Values:
    try:
        values = tuple([labels[name] for name in metric.labels])
    except KeyError:
        values = ()
    if len(values) != len(labels) or len(values) != len(metric.labels):
        raise ValueError(f"{metric.name} has the labels {list(metric.labels)}, not {list(labels)}")
    return values


def _check_closed_labels(metric: Metric, values: Values) -> None:
    for value, (name, closed) in zip(values, metric.labels.items(), strict=True):
        if closed and value not in closed:
            raise ValueError(f"{metric.name}: {name} is {value!r}, expected one of {', '.join(closed)}")
