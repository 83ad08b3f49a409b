"""What an executor sends to the driver: rows of one shape, each a part of what became of one Kafka partition.

The driver gets them as one Arrow table. Partials and dedupe's memory travel as Arrow, the rest as the objects they are.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from dlq.policy import Failures
from tidegate.errors import TidegateError
from tidegate.record import OutRow, TopicPartition
from tidegate.stages.batch import PartitionState

SPARK_SCHEMA: Final = "topic string, partition int, part string, payload binary"
_SCHEMA: Final = pa.schema(
    [("topic", pa.string()), ("partition", pa.int32()), ("part", pa.string()), ("payload", pa.binary())]
)
_DELTAS, _OBJECT, _ERROR, _READY = "deltas:", "object", "error", "ready"
_PACKED: Final = pa.ipc.IpcWriteOptions(compression="lz4")
"""A third of the bytes: Spark's JVM copies each several times, and takes longer over it than packing and unpacking do."""
_SLICE = 100_000  # delta rows in one value: Spark holds a value in one array of at most 2 GiB


@dataclass(frozen=True, slots=True)
class Written:
    """What one chunk of a partition's records has for Kafka. `dead`: how many of `rows` are dead letters of records that
    failed; late ones are not among them."""

    rows: list[OutRow]
    dead: int
    failures: Failures


@dataclass(frozen=True, slots=True)
class Applied:
    """What a partition's records have made of its state."""

    before: PartitionState
    state: PartitionState
    late_windows: pa.Table | None
    seen: pa.Table | None


@dataclass(slots=True)
class Outcome:
    """One partition's share of a micro-batch, as the driver has it."""

    tp: TopicPartition
    applied: Applied
    written: list[Written] = field(default_factory=list)
    deltas: dict[str, list[pa.Table]] = field(default_factory=dict)


def send(tp: TopicPartition, value: Written | Applied) -> pa.RecordBatch:
    """One object for the driver."""
    return _row(tp, _OBJECT, pickle.dumps(value))


def send_deltas(tp: TopicPartition, deltas: Mapping[str, pa.Table]) -> Iterator[pa.RecordBatch]:
    """Partials for the driver."""
    for name, table in deltas.items():
        for start in range(0, table.num_rows, _SLICE):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema, options=_PACKED) as writer:
                writer.write_table(table.slice(start, _SLICE))
            yield _row(tp, _DELTAS + name, sink.getvalue().to_pybytes())


def send_error(error: TidegateError) -> pa.RecordBatch:
    """An error of ours, which the driver raises as it was; anything else fails the task, and Spark reports it."""
    return _row(TopicPartition("", 0), _ERROR, pickle.dumps((type(error), str(error), error.__dict__)))


def ready() -> pa.RecordBatch:
    """A task's only row, if it had nothing to do but to begin."""
    return _row(TopicPartition("", 0), _READY, b"")


def receive(table: pa.Table) -> list[Outcome]:
    """The outcomes of a micro-batch's partitions, by topic and partition. Raises the first error that was sent."""
    outcomes: dict[TopicPartition, Outcome] = {}
    others: list[tuple[TopicPartition, str, Any]] = []
    for topic, partition, part, payload in zip(*(table.column(name) for name in _SCHEMA.names), strict=True):
        tp, kind = TopicPartition(topic.as_py(), partition.as_py()), part.as_py()
        if kind == _ERROR:
            raise raised(*pickle.loads(payload.as_py()))
        value = pa.ipc.open_stream(payload.as_buffer()).read_all() if kind != _OBJECT else pickle.loads(payload.as_py())
        if isinstance(value, Applied):
            outcomes[tp] = Outcome(tp, value)
        else:
            others.append((tp, kind, value))
    for tp, kind, value in others:
        if kind == _OBJECT:
            outcomes[tp].written.append(value)
        else:
            outcomes[tp].deltas.setdefault(kind.removeprefix(_DELTAS), []).append(value)
    return [outcomes[tp] for tp in sorted(outcomes)]


def _row(tp: TopicPartition, part: str, payload: bytes) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"topic": tp.topic, "partition": tp.partition, "part": part, "payload": payload}], _SCHEMA
    )


def raised(kind: type[TidegateError], text: str, attributes: dict[str, Any]) -> TidegateError:
    """Made without its constructor, whose arguments an error does not keep."""
    error = kind.__new__(kind, text)
    error.__dict__.update(attributes)
    return error
