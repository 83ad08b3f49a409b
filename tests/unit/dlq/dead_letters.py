"""Batches, plans and rejections for the tests of dead letters, in one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from dlq.dialects import Origin
from dlq.envelope import Envelope
from dlq.kind import Kinds
from dlq.letter import Letter, RawRecord
from dlq.writing import LetterWriter
from tidegate.config.pipeline import Pipeline
from tidegate.config.queue import DeadLetterConfig
from tidegate.headers import Headers
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import RAW_SCHEMA, BatchResult, PartitionState, RawBatch, Reason, Rejection
from tidegate.stages.plan import Plan

SOURCE = TopicPartition("flights", 1)
NOW_MS = 1_700_000_000_123


class Written(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Headers


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


def kinds(now_ms: int = NOW_MS) -> Kinds:
    return Kinds(pipeline="flights", schema="flights@0", now_ms=now_ms)


def letter(offset: int = 42, *, now_ms: int = NOW_MS, failed: Rejection | None = None, **fields: Any) -> Letter:
    return Letter.of(failed or rejection(offset), record(offset, **fields), kinds(now_ms))


def written(one: Letter, **config: Any) -> Written:
    """A letter as it goes to its topic, which is the same in both forms. `config`: of the queue."""
    writer = LetterWriter(DeadLetterConfig(**config))
    found, (*rest, headers) = Written(*writer.record(one)), writer.packed(one)
    assert found == (*rest, list(headers))
    return found


def envelope(offset: int = 42, **fields: Any) -> Envelope:
    """What is read of that letter, from wherever it is kept."""
    return told(letter(offset, **fields))


def read_back(one: tuple[bytes | None, bytes | None, Headers], *, timestamp: int = NOW_MS) -> Envelope:
    """An envelope from its Kafka record, as if at dlq-0@7."""
    return Envelope.from_record(*one, tp=TopicPartition("dlq", 0), offset=7, timestamp=timestamp)


def told(one: Letter) -> Envelope:
    """All that a letter tells, as whoever reads it should find it when nothing was cut."""
    kind = one.kind
    origin = Origin(kind.topic, kind.partition, one.offset, one.timestamp, kind.timestamp_type)
    alike = {name: getattr(kind, name) for name in Envelope.__struct_fields__ if hasattr(kind, name)}
    own = {name: getattr(one, name) for name in Envelope.__struct_fields__ if hasattr(one, name)}
    return Envelope(**alike, **own, origin=origin)
