"""Rows whose headers are packed by us become the very record batches that aiokafka makes of the same rows."""

from __future__ import annotations

import time
from unittest import mock

import hypothesis.strategies as st
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import example, given

import worker.packing
from tidegate.headers import Header
from tidegate.record import OutRow
from tidegate.recordformat import PackedHeaders
from worker.packing import Batch, pack
from worker.records import Rows, by_partition

_FIELDS = st.none() | st.binary(max_size=80) | st.builds(lambda n: b"x" * n, st.integers(8_000, 70_000))
_HEADERS = st.lists(st.tuples(st.text(max_size=70), _FIELDS), max_size=5)
_TIMES = st.integers(0, 2**41) | st.sampled_from([1_700_000_000_000, 1_700_000_000_001])
_ROWS = st.lists(st.tuples(_FIELDS, _FIELDS, _HEADERS, _TIMES), min_size=1, max_size=6)

Row = tuple[bytes | None, bytes | None, list[Header], int]

_PRODUCER = (71, 3, 900)  # id, epoch, sequence


def rows_of(rows: list[Row], *, packed: bool) -> Rows:
    keys, values, headers, timestamps = map(list, zip(*rows, strict=True))
    ready = [PackedHeaders.of(each) for each in headers] if packed else headers
    return Rows("t", 0, keys, values, ready, timestamps)


def built(batches: list[Batch]) -> list[bytes]:
    for batch in batches:
        batch._set_producer_state(*_PRODUCER)
    return [bytes(batch._build()) for batch in batches]


@given(_ROWS, st.booleans())
@example([(b"k", b"v", [], 5)] * 5_000, True)
@example([(b"k", b"v", [("h", None)] * 5_000, 5)], True)
def test_the_bytes_are_aiokafkas(rows: list[Row], packed: bool) -> None:
    """Records, times, compression, check sum and the producer's numbers: each byte of the batch, however often it is sent."""
    with mock.patch.object(worker.packing, "_BATCH_BYTES", 1 << 30):
        batches = list(pack([rows_of(rows, packed=packed)]))
    theirs = DefaultRecordBatchBuilder(2, 3, 1, *_PRODUCER, 1 << 30)
    for number, (key, value, headers, timestamp) in enumerate(rows):
        assert theirs.append(number, timestamp, key, value, headers) is not None
    assert built(batches) == [bytes(batch._build()) for batch in batches] == [bytes(theirs.build())]
    assert [batch.record_count() for batch in batches] == [len(rows)]


@given(_ROWS, st.integers(100, 100_000), st.booleans())
def test_batches_keep_to_their_size(rows: list[Row], limit: int, packed: bool) -> None:
    """However small a batch may be: all rows come in their order, and only a row that is larger goes alone beyond it."""
    with mock.patch.object(worker.packing, "_BATCH_BYTES", limit):
        batches = list(pack([rows_of(rows, packed=packed)]))
    assert all(batch.record_count() > 0 for batch in batches)
    found = []
    for batch, data in zip(batches, built(batches), strict=True):
        read = MemoryRecords(data).next_batch()
        assert read is not None
        assert read.validate_crc()
        records = list(read)
        assert [record.offset for record in records] == list(range(batch.record_count()))
        sizes = [
            len(record.key or b"") + len(record.value or b"") + PackedHeaders.of(record.headers).size
            for record in records
        ]
        assert len(records) == 1 or sum(sizes) <= limit
        found += [(record.key, record.value, record.headers, record.timestamp) for record in records]
    assert found == rows


@given(_HEADERS)
def test_packed_headers_are_read_back(headers: list[Header]) -> None:
    """To iterate over packed headers gives what was packed."""
    packed = PackedHeaders.of(headers)
    assert list(packed) == headers
    assert packed.count == len(headers)


def test_rows_in_both_forms() -> None:
    """Where some rows of a partition have their headers packed and others have not, all are written in their order, each at
    its time."""
    mixed = [
        OutRow("t", 0, b"a", b"1", [("h", b"x")], 5),
        OutRow("t", 1, b"b", b"2", PackedHeaders.of([("h", b"y")]), 6),
        OutRow("t", 0, b"c", b"3", PackedHeaders.of([("h", None)]), 4),
        OutRow("t", 2, b"d", b"4", [], 7),
    ]
    found = {}
    for rows in by_partition(mixed):
        (data,) = built(list(pack([rows])))
        found[rows.partition] = [
            (record.key, record.headers, record.timestamp) for record in MemoryRecords(data).next_batch() or ()
        ]
    assert found == {
        0: [(b"a", [("h", b"x")], 5), (b"c", [("h", None)], 4)],
        1: [(b"b", [("h", b"y")], 6)],
        2: [(b"d", [], 7)],
    }


@pytest.mark.parametrize("packed", [False, True])
def test_rows_without_a_time_have_that_of_sending(packed: bool) -> None:
    """A topic's retention counts from a record's time: rows that come with none are not from 1970, in any place."""
    headers = PackedHeaders.of([]) if packed else list[Header]()
    before = time.time_ns() // 1_000_000
    rows = [OutRow("t", 0, b"k", b"v", headers, timestamp) for timestamp in (None, 5, None)]
    (data,) = built(list(pack(by_partition(rows))))
    first, second, third = (record.timestamp for record in MemoryRecords(data).next_batch() or ())
    assert second == 5
    assert all(before <= timestamp <= time.time_ns() // 1_000_000 for timestamp in (first, third))


def test_a_row_is_as_large_as_its_key_value_and_headers() -> None:
    """Whoever is told that a row is too large is told of its headers, in either form; packed, with their lengths."""
    row: Row = b"key", b"value", [("name", bytes(1_000))], 5
    assert [rows_of([row, (None, None, [], 5)], packed=packed).largest for packed in (False, True)] == [1_012, 1_015]


def test_parts_share_batches() -> None:
    """Parts of a partition go out together: a batch waits for the one before it, a round trip to the broker."""
    row: Row = b"k", b"v", [("h", b"x")], 5
    parts = [rows_of([row] * count, packed=packed) for count, packed in [(1, False), (2, False), (3, True), (4, True)]]
    assert [batch.record_count() for batch in pack(parts)] == [1 + 2, 3 + 4]
