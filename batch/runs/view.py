"""A run for people and for machines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tidegate.store.runs import Position, Run

LISTED = {
    "run": "run",
    "state": "state",
    "host": "host",
    "pid": "pid",
    "trigger": "trigger",
    "started": "started",
    "beaten": "last beat",
    "batches": "micro-batches",
    "read": "read",
    "rate": "records/s",
    "lag": "lag",
}
PLACES = {"source": "partition", "upto": "upto", "lag": "lag", "watermark": "watermark"}


def document(run: Run) -> dict[str, Any]:
    """For `--json`. `recordsPerSecond`: of the last ten micro-batches while they were at work; `batchSeconds`: of the last."""
    said = run.said
    return {
        "run": said.run,
        "state": run.state,
        "alive": run.alive,
        "stopAsked": run.stop_asked,
        "query": said.query,
        "host": said.host,
        "pid": said.pid,
        "trigger": said.trigger,
        "started": _instant(run.started),
        "lastBeat": _instant(run.beaten),
        "doing": said.doing or None,
        "error": said.error,
        "batches": said.batches,
        "read": said.read,
        "recordsPerSecond": None if said.records_per_second is None else round(said.records_per_second, 1),
        "batchSeconds": None if said.batch_seconds is None else round(said.batch_seconds, 3),
        "lag": _lag(run),
        "published": dict(said.published),
        "metrics": said.metrics,
        "ui": said.ui,
        "partitions": [_place(position) for position in said.positions],
    }


def listed(run: Run) -> dict[str, object]:
    """A row of LISTED."""
    found = document(run)
    rate = found["recordsPerSecond"]
    return {**found, "beaten": f"{run.age:.0f} s ago", "rate": None if rate is None else round(rate)}


def facts(run: Run) -> list[str]:
    """What the tables do not say, a line each."""
    said = run.said
    lines = [
        said.doing,
        f"error: {said.error}" if said.error else "",
        f"last micro-batch: {said.batch_seconds:.2f} s" if said.batch_seconds is not None else "",
        *(f"results for sink {sink}: {number}" for sink, number in said.published.items()),
        f"metrics: {said.metrics}/metrics" if said.metrics else "",
        f"Spark's pages: {said.ui}" if said.ui else "",
    ]
    return [line for line in lines if line]


def places(run: Run) -> list[dict[str, object]]:
    """Rows of PLACES."""
    return [{**_place(one), "source": f"{one.topic}-{one.partition}"} for one in run.said.positions]


def _place(position: Position) -> dict[str, object]:
    return {
        "topic": position.topic,
        "partition": position.partition,
        "upto": position.upto,
        "lag": position.lag,
        "watermark": None if position.watermark is None else _instant(position.watermark),
    }


def _lag(run: Run) -> int | None:
    """Of all partitions; None when that of one is not known."""
    lags = [position.lag for position in run.said.positions]
    return sum(lag for lag in lags if lag is not None) if lags and None not in lags else None


def _instant(milliseconds: int) -> str:
    """ISO 8601 in UTC."""
    try:
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"  # outside the years 1 to 9999
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"
