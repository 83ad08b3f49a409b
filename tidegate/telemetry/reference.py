"""docs/metrics.md from the definitions: `python -m tidegate.telemetry.reference > docs/metrics.md`."""

from __future__ import annotations

import sys
from math import prod

from tidegate.telemetry.metric_defs import METRICS, Histogram, Metric

HEAD = """# Metrics

Served at `/metrics` in Prometheus' text format. This page is rendered from `tidegate/telemetry/metric_defs.py`
(`python -m tidegate.telemetry.reference > docs/metrics.md`); a test says when it is not.

A family holds a limited number of series (*most*). What is beyond it is counted under `other` (a gauge is dropped),
and `tidegate_metrics_folded_labels_total` says how often. prometheus_client's `process_*` families are served beside
these.

| metric | kind | labels | most | meaning |
|---|---|---|---|---|
"""


def render() -> str:
    """The page."""
    return HEAD + "".join(f"{_row(metric)}\n" for metric in METRICS)


def _row(metric: Metric) -> str:
    labels = "<br>".join(
        f"`{name}`: {', '.join(values)}" if values else f"`{name}`" for name, values in metric.labels.items()
    )
    meaning = metric.help
    if isinstance(metric, Histogram):
        meaning += f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)} s."
    known = all(metric.labels.values())
    most = prod(len(values) for values in metric.labels.values()) if known else metric.cap
    return f"| `{metric.name}` | {metric.kind} | {labels} | {most} | {meaning} |"


if __name__ == "__main__":
    sys.stdout.write(render())
