"""Records as aiokafka's extension has unpacked them, without a Python object built around each.

aiokafka copies every record into a dataclass of eleven fields: 29 % of the time that this worker's threads held the
interpreter. The unpacked record has the same `offset`, `timestamp`, `key`, `value` and `headers`.

Its extension stops for good at a header whose name is no UTF-8. From the record batch with that one on, what was fetched is
unpacked again, this batch by aiokafka's Python twin of the extension: 3 µs a record instead of 0.2, until the next batch.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint, encode_varint

from tidegate.headers import UNREADABLE
from tidegate.record import LogRecord

_BATCH = Struct(
    ">qi4xb4x2xi"
)  # a batch's first offset, the bytes that follow, the format, the last offset less the first
_OFFSET_AND_LENGTH = 12  # bytes before those that the length counts
_ONE_HEADER: Final = (
    bytes((2, 2 * len(UNREADABLE.encode()))) + UNREADABLE.encode() + b"\x01"
)  # zigzag: 1 header, no value


class UnpackedRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka is untyped
    """What aiokafka's fetcher takes records from. Of use only without deserializers."""

    _records: Any
    _records_iterator: Any

    def _consumer_record(self, tp: Any, record: LogRecord) -> LogRecord:
        return record

    def __next__(self) -> LogRecord:
        try:
            record: LogRecord = next(self._records_iterator)
        except StopIteration:
            self._records_iterator = None
            raise
        except UnicodeDecodeError:
            self._records = _Again(self._records.data, self.next_fetch_offset)
            self._records_iterator = self._unpack_records()  # leaves out what was given already, by its offset
            return next(self)
        return record


class FetchedRecords(MemoryRecords):  # type: ignore[misc]  # aiokafka is untyped
    """A response's record batches, and the bytes that they are in."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _Again(FetchedRecords):
    """The batches from that on in which the record at `offset` is, or would be; that one is read by Python."""

    def __init__(self, data: bytes, offset: int) -> None:
        at, end = _place_of(data, offset)
        self._first: memoryview | None = memoryview(data)[at:end]
        super().__init__(data[end:])

    def has_next(self) -> bool:
        return self._first is not None or bool(super().has_next())

    def next_batch(self) -> Any:
        first, self._first = self._first, None
        return super().next_batch() if first is None else _ReadableBatch(first)


def _place_of(data: bytes, offset: int) -> tuple[int, int]:
    """Where the batch begins and ends in which the record at `offset` is, or which is the first after it."""
    end = 0
    while True:
        at = end
        first, length, kind, last = _BATCH.unpack_from(data, at)
        end = at + _OFFSET_AND_LENGTH + length
        if kind >= 2 and first + last >= offset:  # older formats know no headers
            return at, end


class _ReadableBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka is untyped
    """A batch in which a record with an unreadable header has the one header that tidegate.headers says."""

    _buffer: bytearray
    _pos: int

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            return self._read_without_headers()

    def _read_without_headers(self) -> Any:
        data = self._buffer
        length, start = decode_varint(data, self._pos)
        at = start + 1  # attributes
        for _ in ("timestamp", "offset"):
            _, at = decode_varint(data, at)
        for _ in ("key", "value"):
            size, at = decode_varint(data, at)
            at += max(size, 0)  # −1 is none
        record = data[start:at] + _ONE_HEADER
        self._buffer = bytearray()
        encode_varint(len(record), self._buffer.append)
        self._buffer += record
        self._pos = 0
        try:
            return super()._read_msg()
        finally:
            self._buffer, self._pos = data, start + length


def use_unpacked_records() -> None:
    """From now on aiokafka's consumers in this process give records as they were unpacked."""
    fetcher.PartitionRecords = UnpackedRecords
    fetcher.MemoryRecords = FetchedRecords
