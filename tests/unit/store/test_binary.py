"""Rows as PostgreSQL's binary COPY, taken apart again by the format's own rules (a real server takes them in the contract)."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from tidegate.store.binary import HEADER, TRAILER, has_binary, to_binary
from tidegate.store.copying import as_copied


def taken_apart(rows: bytes) -> list[list[bytes | None]]:
    """Of each row its values."""
    found: list[list[bytes | None]] = []
    at = 0
    while at < len(rows):
        (count,) = struct.unpack_from(">h", rows, at)
        at, row = at + 2, []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", rows, at)
            at += 4
            row.append(None if length == -1 else rows[at : at + length])
            at += max(length, 0)
        found.append(row)
    return found


@pytest.mark.parametrize(
    ("type_", "value", "wanted"),
    [
        (pa.int64(), -2, struct.pack(">q", -2)),
        (pa.int32(), 7, struct.pack(">i", 7)),
        (pa.int8(), -7, struct.pack(">i", -7)),
        (pa.uint32(), 2**32 - 1, struct.pack(">q", 2**32 - 1)),
        (pa.float64(), 0.1, struct.pack(">d", 0.1)),
        (pa.float32(), 0.5, struct.pack(">d", 0.5)),
        (pa.bool_(), True, b"\1"),
        (pa.string(), "größer", "größer".encode()),
        (pa.large_string(), "", b""),
        (pa.binary(), b"\0\xff", b"\0\xff"),
        (pa.timestamp("ms", "UTC"), datetime(2000, 1, 1, 0, 0, 1, tzinfo=UTC), struct.pack(">q", 1_000_000)),
        (pa.timestamp("us", "UTC"), datetime(1999, 12, 31, 23, 59, 59, 1, UTC), struct.pack(">q", -999_999)),
        (pa.date32(), date(2000, 1, 2), struct.pack(">i", 1)),
    ],
)
def test_each_type_is_as_wide_as_its_column(type_: pa.DataType, value: Any, wanted: bytes) -> None:
    """With nulls among its values and without, alone and beside others."""
    for values in ([value, value], [None, value], [value, None], [None, None]):
        rows = pa.record_batch({"before": ["a", ""], "it": pa.array(values, type_), "after": pa.array([1, 2])})
        expected = [None if one is None else wanted for one in values]
        parts = taken_apart(to_binary(rows).to_pybytes())
        assert [row[1] for row in parts] == expected
        assert [(row[0], row[2]) for row in parts] == [(b"a", struct.pack(">q", 1)), (b"", struct.pack(">q", 2))]
        assert taken_apart(to_binary(rows.select(["it"])).to_pybytes()) == [[one] for one in expected]


def test_a_part_of_a_table_is_itself() -> None:
    """Arrow's slices are views: what is before and behind stays out."""
    rows = pa.record_batch({"n": pa.array([1, None, 3, 4]), "t": ["one", "two", None, "four"]})
    parts = taken_apart(to_binary(rows.slice(1, 2)).to_pybytes())
    assert parts == [[None, b"two"], [struct.pack(">q", 3), None]]
    assert to_binary(rows.slice(4)).to_pybytes() == b""


def test_exact_numbers_go_as_csv() -> None:
    """Their binary form is one of its own."""
    exact = pa.table({"d": pa.array([1], pa.decimal128(10, 2))})
    assert not has_binary(exact.schema)
    assert not has_binary(pa.schema([("u", pa.uint64())]))
    form, parts = as_copied(exact)
    assert (form, b"".join(pa.py_buffer(part).to_pybytes() for part in parts)) == ("csv", b"1.00\n")


def test_a_table_goes_in_parts() -> None:
    """Between one header and one trailer."""
    form, parts = as_copied(pa.table({"n": pa.array(range(40_000))}))
    head, *rows, tail = (pa.py_buffer(part).to_pybytes() for part in parts)
    assert (form, head, tail) == ("binary", HEADER, TRAILER)
    assert len(rows) == 3
    assert [struct.unpack(">q", one or b"") for part in rows for (one,) in taken_apart(part)] == [
        (n,) for n in range(40_000)
    ]
