"""The definitions of the metrics, and the page rendered from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tidegate.ledger import LEDGER_OUTCOMES
from tidegate.telemetry import reference
from tidegate.telemetry.metric_defs import METRICS, RECORDS_PROCESSED, Counter, Gauge, Metric

every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


@every_metric
def test_names(metric: Metric) -> None:
    """Names have the prefix and Prometheus' form; counters end in _total, and nothing else does."""
    assert re.fullmatch(r"tidegate_[a-z]+(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") is isinstance(metric, Counter)


@every_metric
def test_explained(metric: Metric) -> None:
    """Every metric says in one line what it means."""
    assert metric.help.endswith(".")
    assert "\n" not in metric.help


@every_metric
def test_labels(metric: Metric) -> None:
    """No label can take a value per record, and only families with a partition may hold thousands of series."""
    assert not {"key", "offset", "id", "record_id", "message", "trace_id"} & set(metric.labels)
    assert metric.cap <= 1000 or "partition" in metric.labels


def test_names_are_unique() -> None:
    """No two definitions share a name."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_outcomes_are_the_ledgers() -> None:
    """The outcomes of a record are called in metrics as they are in the ledger."""
    assert RECORDS_PROCESSED.labels["outcome"] == LEDGER_OUTCOMES


def test_moments_are_gauges() -> None:
    """Moments are exported as timestamps in seconds, as gauges."""
    assert all(isinstance(metric, Gauge) for metric in METRICS if "timestamp" in metric.name)


def test_page_is_current() -> None:
    """docs/metrics.md is what the definitions render to."""
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    assert page.read_text() == reference.render(), "run: python -m tidegate.telemetry.reference > docs/metrics.md"
