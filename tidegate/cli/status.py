"""`tidegate status`: per source partition, how far it is and who has it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, print_json, print_table
from tidegate.config.loading import load_pipeline

if TYPE_CHECKING:
    from tidegate.config.pipeline import Pipeline
    from tidegate.record import TopicPartition
    from tidegate.store.progress import Progress
    from tidegate.store.reading import TopicReader

_COLUMNS = {
    "name": "partition",
    "committed": "committed",
    "upto": "upto",
    "end": "end",
    "lag": "lag",
    "watermark": "watermark",
    "idle": "idle",
    "openWindows": "open windows",
    "lateMissing": "late missing",
    "owner": "owner",
}


def status(
    file: Annotated[Path, typer.Argument(help="The pipeline file, YAML or JSON.")],
    as_json: AsJson = False,
) -> None:
    """Show how far each partition is.

    `committed` is the group's offset (for monitoring only), `upto` the last applied offset, from which work goes on.
    `lag` is in offsets: in a transactional or compacted topic fewer records are behind it. `late missing` counts late records,
    once per window that misses them; `tidegate batch backfill --late` brings them in.
    """
    from tidegate.store.progress import read_progress
    from tidegate.store.reading import TopicReader

    pipeline = load_pipeline(file)
    with TopicReader(pipeline.kafka, pipeline.pipeline_id) as reader:
        progress = read_progress(pipeline, reader)
        rows = [_row(pipeline, progress, reader, tp, committed) for tp, committed in _committed(pipeline, reader)]
    if as_json:
        print_json({"pipelineId": pipeline.pipeline_id, "source": progress.source, "partitions": rows})
    else:
        named = [row | {"name": f"{row['topic']}-{row['partition']}"} for row in rows]
        print_table(named, _COLUMNS, title=f"{pipeline.pipeline_id} (from {progress.source})")


def _committed(pipeline: Pipeline, reader: TopicReader) -> list[tuple[TopicPartition, int | None]]:
    """All partitions of the source topics, those that nobody has claimed yet too. Raises ConfigError for a missing topic."""
    from tidegate.store.progress import source_partitions

    return sorted(reader.committed(source_partitions(pipeline, reader)).items())


def _row(
    pipeline: Pipeline, progress: Progress, reader: TopicReader, tp: TopicPartition, committed: int | None
) -> dict[str, object]:
    from tidegate.store.progress import watermark

    low, end = reader.bounds(tp)
    found = next((row for row in progress.rows if row.tp == tp), None)
    upto = found.state.upto if found else -1
    late = progress.late.get(tp)
    return {
        "topic": tp.topic,
        "partition": tp.partition,
        "committed": committed,
        "upto": upto if upto >= 0 else None,
        "end": end,
        "lag": max(0, end - max(upto + 1, low)),
        "watermark": _instant(watermark(pipeline, found) if found else None),
        "idle": found.state.idle if found else False,
        "openWindows": progress.open_windows.get(tp),
        "lateMissing": late.missing if late else None,
        "lateRefused": late.refused if late else None,
        "lateAmended": late.amended if late else None,
        "epoch": found.epoch or None if found else None,
        "owner": found.owner or None if found else None,
    }


def _instant(milliseconds: int | None) -> str | None:
    """ISO 8601 in UTC."""
    if milliseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"  # outside the years 1 to 9999
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"
