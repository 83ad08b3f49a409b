"""How far each source partition is and who has it: what `tidegate status` prints and the console shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tidegate.config.pipeline import Pipeline
from tidegate.record import TopicPartition
from tidegate.store.progress import Progress, not_read, read_progress, source_partitions, stored_progress, watermark
from tidegate.store.reading import TopicReader

_NO_SUCH = "no such partition"  # any more: the topic was made anew with fewer


@dataclass(frozen=True, slots=True)
class Status:
    """`source`: where it was read. `partitions`: a JSON object each, by topic and number; null is not known."""

    source: str
    partitions: list[dict[str, Any]]


def read_status(pipeline: Pipeline, reader: TopicReader) -> Status:
    """Of all partitions of the source topics, those that nobody has claimed yet too; behind them those that there is a state of
    and that are not read any more.

    Raises ConfigError for a missing topic, StoreUnavailable, BrokerUnavailable.
    """
    progress = read_progress(pipeline, reader)
    partitions = source_partitions(pipeline, reader)
    rows = [
        _row(pipeline, progress, tp) | _in_kafka(progress, tp, committed, reader.bounds(tp))
        for tp, committed in sorted(reader.committed(partitions).items())
    ]
    left = sorted({row.tp for row in progress.rows} - set(partitions))
    rows += [_row(pipeline, progress, tp) | {"note": not_read(pipeline, tp) or _NO_SUCH} for tp in left]
    return Status(progress.source, rows)


def stored_status(pipeline: Pipeline) -> Status | None:
    """What the store alone knows, for when Kafka is away; None without a store. Raises StoreUnavailable."""
    progress = stored_progress(pipeline)
    if progress is None:
        return None
    return Status(progress.source, [_row(pipeline, progress, row.tp) for row in progress.rows])


def _row(pipeline: Pipeline, progress: Progress, tp: TopicPartition) -> dict[str, Any]:
    found = next((row for row in progress.rows if row.tp == tp), None)
    late = progress.late.get(tp)
    return {
        "topic": tp.topic,
        "partition": tp.partition,
        "committed": None,
        "upto": found.state.upto if found and found.state.upto >= 0 else None,
        "end": None,
        "lag": None,
        "watermark": _instant(watermark(pipeline, found) if found else None),
        "idle": found.state.idle if found else False,
        "openWindows": progress.open_windows.get(tp),
        "lateMissing": late.missing if late else None,
        "lateRefused": late.refused if late else None,
        "lateAmended": late.amended if late else None,
        "lateExpired": late.expired if late else None,
        "epoch": found.epoch or None if found else None,
        "owner": found.owner or None if found else None,
        "note": not_read(pipeline, tp),
    }


def _in_kafka(
    progress: Progress, tp: TopicPartition, committed: int | None, bounds: tuple[int, int]
) -> dict[str, int | None]:
    """`bounds`: the partition's first offset, and the one after its last."""
    low, end = bounds
    upto = next((row.state.upto for row in progress.rows if row.tp == tp), -1)
    return {"committed": committed, "end": end, "lag": max(0, end - max(upto + 1, low))}


def _instant(milliseconds: int | None) -> str | None:
    """ISO 8601 in UTC."""
    if milliseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"  # outside the years 1 to 9999
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"
