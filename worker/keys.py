"""The rows of a partition's state: their key prefixes, in the local database and in the changelog alike."""

from __future__ import annotations

import struct

from tidegate.store.rows import PARTITION_KEY

PARTITION = PARTITION_KEY  # the partition row: upto, high water, ledger. Written last, read first
CLOSED = b"\x00C"  # up to which event time windows were closed, ms
CHANGELOG = b"\x00I"  # the id of the changelog topic that this row was first written to (see identity.py)
LAYOUT = b"\x00D"  # + aggregation: the digest of the layout of its rows
WINDOW = b"W"  # + aggregation + window end + group: the measures' partials
LATE = b"L"  # + aggregation + window end: how many records the window misses
SEEN = b"S"  # + dedupe key: event time of the first record
SEEN_BY_TIME = b"T"  # + event time + dedupe key: for forgetting what is past the horizon
# MERGE (tidegate/rowkeys.py) + aggregation + window end + group: the newest partial of each source partition
SOURCE = b"V"  # + source partition: its watermark, as the merge agent knows it

_INT64 = struct.Struct("<q")


def pack_int(number: int) -> bytes:
    return _INT64.pack(number)


def unpack_int(value: bytes) -> int:
    number: int = _INT64.unpack(value)[0]
    return number
