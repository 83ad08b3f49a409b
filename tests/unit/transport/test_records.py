"""How what was fetched is unpacked when a header's name in it is no UTF-8. What becomes of such headers: tidegate/headers.py."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.record.util import calc_crc32c

from tests.unreadable import NotUtf8, Pairs, builder
from tidegate.headers import UNREADABLE
from tidegate.record import TopicPartition
from transport.records import FetchedRecords, UnpackedRecords

TP = TopicPartition("flights", 0)
GOOD: Pairs = [("a", b"1"), ("é", None)]
BAD: Pairs = [("a", b"1"), (NotUtf8("é"), b"2"), ("z", None)]
READ: Pairs = [(UNREADABLE, None)]
LONG = b"v" * 2000

Row = tuple[int, int, bytes | None, bytes | None, Pairs]


def packed(rows: Sequence[Row], codec: int = 0, producer: int = -1, *, control: bool = False) -> bytes:
    """A batch of (offset, timestamp, key, value, headers), all that is not the broker's own made by aiokafka."""
    batch, start = builder(codec), rows[0][0]
    for offset, timestamp, key, value, headers in rows:
        batch.append(offset - start, timestamp, key, value, headers)
    batch.set_producer_state(producer, 0, 0)
    data: bytearray = batch.build()
    struct.pack_into(">q", data, 0, start)
    data[22] |= (0x10 if producer >= 0 else 0) | (0x20 if control else 0)
    struct.pack_into(">I", data, 17, calc_crc32c(data[21:]))
    return bytes(data)


def unpack(*batches: bytes, start: int = 0, aborted: Sequence[tuple[int, int]] = ()) -> list[Row]:
    records: Any = UnpackedRecords(TP, FetchedRecords(b"".join(batches)), aborted, start, None, None, True, 1)
    rows = [(one.offset, one.timestamp, one.key, one.value, one.headers) for one in records]
    assert records.next_fetch_offset == end_of(batches[-1])
    return rows


def end_of(batch: bytes) -> int:
    first, last = struct.unpack_from(">q15xi", batch)
    return int(first + last + 1)


@pytest.mark.parametrize("codec", range(5), ids=["plain", "gzip", "snappy", "lz4", "zstd"])
def test_a_record_in_the_middle(codec: int) -> None:
    """All three come, in order and as they are but for its headers; a key, value and timestamp may be anything, as ever."""
    rows: list[Row] = [(7, 5000, b"k" * 300, LONG, GOOD), (8, 4000, None, LONG, BAD), (11, 9000, b"", None, [])]
    assert unpack(packed(rows, codec), start=7) == [rows[0], (*rows[1][:4], READ), rows[2]]


def test_batches_before_and_after() -> None:
    """Each record once, from where the reading starts (a broker sends the whole batch) to the end."""
    headers = [GOOD, GOOD, BAD, GOOD, GOOD, GOOD, BAD, BAD, GOOD, BAD]
    rows: list[Row] = [(n, n, b"%d" % n, None, one) for n, one in enumerate(headers)]
    batches = [packed(rows[a:b]) for a, b in ((0, 2), (2, 4), (4, 6), (6, 9), (9, 10))]
    wanted = [(*row[:4], READ if row[4] is BAD else GOOD) for row in rows]
    assert unpack(*batches) == wanted
    assert unpack(*batches[1:], start=3) == wanted[3:]
    assert unpack(*batches[3:], start=7) == wanted[7:]


def test_aborted_transactions() -> None:
    """What was aborted stays away: of two transactions of one producer the first one's marker is not taken for the second's."""
    batches = [
        packed([(0, 0, b"aborted", None, BAD)], producer=7),
        packed([(1, 0, b"\0\0\0\0", b"\0" * 6, [])], producer=7, control=True),
        packed([(2, 0, b"aborted", None, GOOD)], producer=7),
        packed([(3, 0, b"kept", None, BAD)]),
        packed([(4, 0, b"aborted", None, BAD)], producer=7),
        packed([(5, 0, b"\0\0\0\0", b"\0" * 6, [])], producer=7, control=True),
    ]
    assert unpack(*batches, aborted=[(7, 0), (7, 2)]) == [(3, 0, b"kept", None, READ)]
