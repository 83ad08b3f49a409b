"""What the agents receive: one message per partition and fetch, whose value is a batch of records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from faust.serializers.schemas import Schema

from tidegate.record import LogRecord, TopicPartition

_RECORD_OVERHEAD = (
    64  # bytes charged to a record beside key and value, so that a million empty ones do not count as nothing
)


class SourceBatch:
    """Records of one partition, in offset order. Offsets may have gaps.

    `first` and `last` are offsets; `nbytes` is keys + values + 64 per record. `epoch` numbers the times the partition
    was opened or sought: `consumer.is_current(batch)` says whether the batch still follows what was delivered before
    it. `fetched`: when the records came, in seconds on the monotonic clock.
    """

    __slots__ = ("epoch", "fetched", "first", "last", "nbytes", "records", "tp")

    def __init__(
        self, tp: TopicPartition, records: list[LogRecord], nbytes: int, epoch: int = 0, fetched: float = 0.0
    ) -> None:
        self.tp, self.records, self.nbytes, self.epoch, self.fetched = tp, records, nbytes, epoch, fetched
        self.first: int = records[0].offset
        self.last: int = records[-1].offset

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<SourceBatch {self.tp} {self.first}..{self.last}: {len(self.records)} records, {self.nbytes} bytes>"


def record_size(record: LogRecord) -> int:
    """Bytes charged to one record."""
    return len(record.key or b"") + len(record.value or b"") + _RECORD_OVERHEAD


def split(
    tp: TopicPartition,
    records: Sequence[LogRecord],
    *,
    max_records: int,
    max_bytes: int,
    epoch: int = 0,
    fetched: float = 0.0,
) -> Iterator[SourceBatch]:
    """Cut one fetch into batches within both limits, in order. A single record above `max_bytes` is a batch of its
    own."""
    sizes = [record_size(record) for record in records]
    total = sum(sizes)
    if records and len(records) <= max_records and total <= max_bytes:
        yield SourceBatch(tp, list(records), total, epoch, fetched)
        return
    start, nbytes = 0, 0
    for index, size in enumerate(sizes):
        if index > start and (index - start >= max_records or nbytes + size > max_bytes):
            yield SourceBatch(tp, list(records[start:index]), nbytes, epoch, fetched)
            start, nbytes = index, 0
        nbytes += size
    if start < len(records):
        yield SourceBatch(tp, list(records[start:]), nbytes, epoch, fetched)


class BatchSchema(Schema[Any, Any]):
    """Hands batches through as they are: Faust must not decode them, since it acknowledges what it cannot decode."""

    def compile(self, app: Any, **kwargs: Any) -> Callable[..., Any]:
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return create_event(None, message.value, message.headers, message)

        return decode
