"""Raw batches and pipelines for the tests of the stages."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from tidegate.config.pipeline import Pipeline
from tidegate.stages.batch import RAW_SCHEMA

Headers = list[tuple[str, bytes]] | None


def pipeline(**parts: object) -> Pipeline:
    """A pipeline of the given parts, in the words of the file."""
    return Pipeline.model_validate({"pipelineId": "test", "source": {"topics": ["t"]}, **parts})


def raw(
    values: Sequence[bytes | None],
    *,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers] | None = None,
    first: int = 100,
) -> pa.RecordBatch:
    """Records with the given values, from offset `first` on; timestamps are 1 000 000 + offset."""
    offsets = range(first, first + len(values))
    listed = [None if h is None else [{"key": k, "value": v} for k, v in h] for h in headers or [None] * len(values)]
    columns = {
        "offset": list(offsets),
        "timestamp": [1_000_000 + offset for offset in offsets],
        "key": list(keys or [None] * len(values)),
        "value": list(values),
        "headers": listed,
    }
    return pa.RecordBatch.from_pydict(columns, schema=RAW_SCHEMA)
