"""Rows as Kafka's record batches (format 2, KIP-98), for aiokafka's producer to send.

aiokafka's `BatchBuilder` takes one record after the other, in two calls of Python each: half of the time that packing takes.
Its compiled packer is called here without it; and not at all for rows whose headers are packed already.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from itertools import chain, groupby
from operator import attrgetter
from typing import Protocol

from aiokafka.codec import lz4_encode
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from tidegate.recordformat import PackedHeaders, pack_record
from worker.records import Row, Rows

_BATCH_BYTES = 900_000  # uncompressed; below the 1 048 588 bytes that a broker takes by default

# aiokafka takes lz4's highest level but three, for which Java's clients take the quick form: 2.9 ms for the changelog of 12 288
# records instead of 0.4, and a seventh fewer bytes.
_encode = partial(lz4_encode, level=1)
import_module(DefaultRecordBatchBuilder.__module__).lz4_encode = _encode  # type: ignore[attr-defined]  # a name of the compiled packer

_MAGIC = 2
_LZ4 = DefaultRecordBatch.CODEC_LZ4
_ATTRIBUTES = _LZ4 | 0x10  # of a transaction
_NO_EPOCH = -1  # of the partition's leader: the broker puts it in
_START = struct.Struct(
    ">qiibI"
)  # base offset, length behind itself, leader's epoch, magic, CRC-32C of all that follows
_REST = struct.Struct(">hiqqqhii")  # attributes, last number, first and latest time, producer, epoch, sequence, records
_BEHIND_LENGTH = _START.size - 12  # bytes of it that the length counts


class _Packer(Protocol):
    """Puts a batch's records into bytes when it is known which producer sends it, as its how manieth."""

    def set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None: ...

    def build(self) -> bytes | bytearray: ...


class Batch:
    """What aiokafka's sender asks of a batch: this one is full."""

    def __init__(self, packer: _Packer, count: int) -> None:
        self._packer, self._count = packer, count
        self._built: bytes | bytearray | None = None

    def record_count(self) -> int:
        return self._count

    def closed(self) -> bool:
        return True

    def close(self) -> None: ...

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._packer.set_producer_state(producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes | bytearray:
        """The bytes: the same when it is sent once more."""
        if self._built is None:
            self._built = self._packer.build()
        return self._built


def pack(parts: Sequence[Rows]) -> Iterator[Batch]:
    """Record batches of at most 900 000 bytes before compression; a larger row is a batch of its own. Parts share batches, as
    each of a partition's is a round trip to the broker: windows that close, corrections and updates are three parts."""
    for packed, alike in groupby(parts, attrgetter("packed")):
        rows = chain.from_iterable(alike)
        yield from _pack_ready(rows) if packed else _pack_plain(rows)


def _pack_plain(rows: Iterable[Row]) -> Iterator[Batch]:
    """With aiokafka's packer."""
    packer, count = _aiokafkas(), 0
    for key, value, headers, timestamp in rows:
        if packer.append(count, timestamp, key, value, headers) is None:
            yield Batch(packer, count)
            packer, count = _aiokafkas(), 0
            packer.append(count, timestamp, key, value, headers)
        count += 1
    yield Batch(packer, count)


def _aiokafkas() -> DefaultRecordBatchBuilder:
    return DefaultRecordBatchBuilder(_MAGIC, _LZ4, 1, -1, -1, 0, _BATCH_BYTES)


def _pack_ready(rows: Iterable[Row]) -> Iterator[Batch]:
    """Of rows whose headers are packed."""
    now = int(time.time() * 1000)
    packer, size = _Ready(), 0
    for key, value, headers, timestamp in rows:
        assert isinstance(headers, PackedHeaders)
        at = now if timestamp is None else timestamp
        record = packer.record(key, value, headers, at)
        size += len(record[0]) + len(record[1])
        if size > _BATCH_BYTES and packer.count:
            yield Batch(packer, packer.count)
            packer = _Ready()
            record = packer.record(key, value, headers, at)
            size = len(record[0]) + len(record[1])
        packer.add(record, at)
    yield Batch(packer, packer.count)


class _Ready:
    """Puts records into a batch whose bytes are there."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._first = self._latest = 0
        self._producer = (-1, -1, 0)
        self.count = 0

    def record(
        self, key: bytes | None, value: bytes | None, headers: PackedHeaders, timestamp: int
    ) -> tuple[bytes, bytes]:
        """The next one's bytes."""
        return pack_record(self.count, timestamp - self._first if self.count else 0, key, value, headers)

    def add(self, record: tuple[bytes, bytes], timestamp: int) -> None:
        if not self.count:
            self._first = self._latest = timestamp
        elif timestamp > self._latest:
            self._latest = timestamp
        self._pieces += record
        self.count += 1

    def set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = producer_id, producer_epoch, base_sequence

    def build(self) -> bytes:
        records, count = _encode(b"".join(self._pieces)), self.count
        rest: bytes = _REST.pack(_ATTRIBUTES, count - 1, self._first, self._latest, *self._producer, count) + records
        return _START.pack(0, _BEHIND_LENGTH + len(rest), _NO_EPOCH, _MAGIC, calc_crc32c(rest)) + rest
