"""Batches, plans and rejections for the tests of dead letters, in one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dlq.envelope import Envelope, RawRecord
from tidegate.config.pipeline import Pipeline
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import RAW_SCHEMA, BatchResult, PartitionState, RawBatch, Reason, Rejection
from tidegate.stages.plan import Plan

SOURCE = TopicPartition("flights", 1)
NOW_MS = 1_700_000_000_123


def plan(**pipeline: Any) -> Plan:
    model = Pipeline.model_validate({"pipelineId": "flights", **pipeline})
    return Plan(model, pa.schema([]), pa.schema([]), ())


def batch(offsets: Sequence[int], *, headers: Any = None, tp: TopicPartition = SOURCE) -> RawBatch:
    """Records whose key is `k{offset}` and whose value is `v{offset}`."""
    rows = [
        {"offset": o, "timestamp": o * 10, "key": b"k%d" % o, "value": b"v%d" % o, "headers": headers} for o in offsets
    ]
    return RawBatch(tp, pa.RecordBatch.from_pylist(rows, schema=RAW_SCHEMA))


def rejection(offset: int, message: str = "expected bigint, found 'x'", **fields: Any) -> Rejection:
    reason = Reason("WrongType", message, field="dep_time", found="x")
    return Rejection(offset, fields.pop("stage", Stage.DECODE), fields.pop("reasons", (reason,)), **fields)


def result(raw: RawBatch, rejected: Sequence[Rejection] = (), late: Sequence[Any] = ()) -> BatchResult:
    state = PartitionState()
    return BatchResult(raw, state, state, pa.table({}), rejected=list(rejected), late=list(late))


def record(offset: int = 42, **fields: Any) -> RawRecord:
    return RawRecord(
        fields.pop("tp", SOURCE), offset, **{"timestamp": 5, "key": b"k", "value": b'{"dep_time": "x"}', **fields}
    )


def envelope(offset: int = 42, *, now_ms: int = NOW_MS, failed: Rejection | None = None, **fields: Any) -> Envelope:
    return Envelope.of(
        failed or rejection(offset), record(offset, **fields), pipeline="flights", schema="flights@0", now_ms=now_ms
    )


def read_back(written: Any, *, timestamp: int = NOW_MS) -> Envelope:
    """An envelope from its Kafka record, as if at dlq-0@7."""
    key, value, headers = written
    return Envelope.from_record(key, value, headers, tp=TopicPartition("dlq", 0), offset=7, timestamp=timestamp)
