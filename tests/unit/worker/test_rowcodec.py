"""State rows survive the way into bytes and back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.rowkeys import decode_keys, encode_keys, order_preserving
from worker.rowcodec import RowCodec

INT64 = st.integers(-(2**63), 2**63 - 1)
MICROS = st.datetimes()
VALUES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.int64(), INT64),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.date32(), st.dates()),
    (pa.timestamp("us"), MICROS),
    (pa.decimal128(38, 0), st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)),
    (pa.string(), st.text()),
    (pa.binary(), st.binary()),
]
GROUPS = [pair for pair in VALUES if not pa.types.is_floating(pair[0]) and not pa.types.is_binary(pair[0])]


@given(st.data())
def test_any_row_round_trips(data: st.DataObject) -> None:
    """Every type, nulls included, in any order of columns, reads back as it was written."""
    columns = data.draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=6))
    rows = data.draw(st.integers(1, 5))
    table = pa.table(
        {
            f"c{i}": pa.array(data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)
            for i, (kind, values) in enumerate(columns)
        }
    )
    codec = RowCodec([(field.name, field.type) for field in table.schema])
    assert codec.decode(codec.encode(table)).equals(table)


@given(st.data())
def test_any_key_round_trips(data: st.DataObject) -> None:
    """A window end and a group of any types, nulls included, read back from the key."""
    columns = data.draw(st.lists(st.sampled_from(GROUPS), max_size=3))
    ends = data.draw(st.lists(INT64, min_size=1, max_size=5))
    groups = [
        pa.chunked_array([pa.array(data.draw(st.lists(st.none() | v, min_size=len(ends), max_size=len(ends))), kind)])
        for kind, v in columns
    ]
    keys = encode_keys(b"W1234", pa.chunked_array([pa.array(ends, pa.int64())]), groups)
    found_ends, found = decode_keys(keys, 5, [(f"g{i}", kind) for i, (kind, _) in enumerate(columns)])
    assert found_ends.to_pylist() == ends
    assert [column.to_pylist() for column in found] == [column.to_pylist() for column in groups]


@given(st.lists(INT64, min_size=2, max_size=2))
def test_keys_sort_by_window_end(ends: list[int]) -> None:
    """The bytes of two window ends compare as the ends do, negative ones included."""
    buffer = order_preserving(np.array(ends, dtype=np.int64))
    assert (buffer[:8] < buffer[8:]) == (ends[0] < ends[1])


def test_a_slice_of_a_table_is_encoded_by_itself() -> None:
    """A table that is a slice of a larger one does not drag the larger one's cells in."""
    table = pa.table({"n": pa.array(range(10), pa.int64()), "s": pa.array([str(i) for i in range(10)])}).slice(3, 4)
    codec = RowCodec([("n", pa.int64()), ("s", pa.string())])
    assert codec.decode(codec.encode(table)).to_pylist() == table.to_pylist()


def test_a_type_without_an_encoding_is_refused_by_name() -> None:
    """A list column cannot be state, and the error names the column."""
    with pytest.raises(ValueError, match=r"column tags: a state row cannot hold list"):
        RowCodec([("tags", pa.list_(pa.string()))])
