"""A batch's rejected records as dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa

from dlq.kind import Kinds
from dlq.letter import Letter, RawRecord
from tidegate.clock import Clock
from tidegate.config.pipeline import Pipeline
from tidegate.config.schema import Column
from tidegate.stages.batch import BatchResult, RawBatch
from tidegate.stages.plan import Plan


def dead_letters(
    result: BatchResult,
    plan: Plan,
    clock: Clock,
    *,
    context: Mapping[str, Any] | None = None,
    timestamp_type: str | None = None,
) -> list[Letter]:
    """A letter for each of `result.rejected`, in that order.

    `context` goes into every one of them (the engine, the host). `timestamp_type`: the source topic's, if known.
    Raises ValueError for a rejection whose offset is not in the batch.
    """
    if not result.rejected:
        return []
    records = pick(result.raw, [rejection.offset for rejection in result.rejected], timestamp_type)
    kinds = Kinds(
        pipeline=plan.pipeline.pipeline_id,
        schema=schema_name(plan.pipeline),
        now_ms=milliseconds(clock),
        context=context,
    )
    return [Letter.of(rejection, record, kinds) for rejection, record in zip(result.rejected, records, strict=True)]


def pick(raw: RawBatch, offsets: Sequence[int], timestamp_type: str | None = None) -> list[RawRecord]:
    """The raw records at `offsets`, in that order: one search and one take for all. ValueError if one is missing."""
    wanted = np.asarray(offsets, dtype=np.int64)
    present = raw.records.column("offset").to_numpy()
    at = np.searchsorted(present, wanted)
    found = at < len(present)
    found[found] = present[at[found]] == wanted[found]
    if not found.all():
        missing = ", ".join(str(offset) for offset in wanted[~found][:5])
        raise ValueError(f"offsets {missing} are not in the batch {raw.tp} {raw.first}..{raw.last}")
    rows = pa.array(at)
    timestamps = raw.records.column("timestamp").to_numpy()[at].tolist()
    keys, values = (raw.records.column(name).take(rows).to_pylist() for name in ("key", "value"))
    headers = _headers(raw.records.column("headers"), rows)
    return [
        RawRecord(raw.tp, offset, timestamp, key, value, own, timestamp_type)
        for offset, timestamp, key, value, own in zip(offsets, timestamps, keys, values, headers, strict=True)
    ]


def schema_name(pipeline: Pipeline) -> str:
    """`pipeline id @ digest`: which schema a record failed against."""
    return f"{pipeline.pipeline_id}@{_digest(pipeline.schema_)}"


def milliseconds(clock: Clock) -> int:
    """The clock's time in ms since the epoch."""
    return int(clock.time() * 1000)


@lru_cache(maxsize=16)
def _digest(columns: tuple[Column, ...]) -> str:
    text = "\n".join(column.model_dump_json(exclude_defaults=True) for column in columns)
    return sha256(text.encode()).hexdigest()[:12]


def _headers(column: pa.Array, rows: pa.Array) -> list[tuple[tuple[str, bytes | None], ...]]:
    if column.null_count == len(column):  # most topics have none, and nested lists are slow to turn into Python
        return [()] * len(rows)
    return [
        () if headers is None else tuple((header["key"], header["value"]) for header in headers)
        for headers in column.take(rows).to_pylist()
    ]
