"""`tidegate status`: per source partition, how far it is and who has it."""

from __future__ import annotations

from tidegate.cli.output import AsJson, print_json, print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline

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
    file: PipelineFile,
    as_json: AsJson = False,
) -> None:
    """Show how far each partition is.

    `committed` is the group's offset (for monitoring only), `upto` the last applied offset, from which work goes on.
    `lag` is in offsets: in a transactional or compacted topic fewer records are behind it. `late missing` counts late records,
    once per window that misses them; `tidegate batch backfill --late` brings them in. A `note` says of a partition why nobody
    reads it any more: no window waits for it.
    """
    from tidegate.store.reading import TopicReader
    from tidegate.store.status import read_status

    pipeline = load_pipeline(file)
    with TopicReader(pipeline.kafka, pipeline.pipeline_id) as reader:
        found = read_status(pipeline, reader)
    if as_json:
        print_json({"pipelineId": pipeline.pipeline_id, "source": found.source, "partitions": found.partitions})
    else:
        named = [row | {"name": f"{row['topic']}-{row['partition']}"} for row in found.partitions]
        noted = {"note": "note"} if any(row["note"] for row in named) else {}
        print_table(named, _COLUMNS | noted, title=f"{pipeline.pipeline_id} (from {found.source})")
