"""Keys of rows that are of a window and a group: in a worker's state, and where the totals of a group go on Kafka.

A key is: a prefix of 5 bytes, the window's end (8 bytes, order-preserving, so that a range of ends is one scan), the group as
msgpack.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

MERGE: Final = b"M"
"""The table of totals over source partitions; its keys say which partition a group's totals go to."""

_SIGN = np.uint64(1 << 63)  # flips signed order into unsigned order
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list).decode


def aggregation_prefix(table: bytes, name: str) -> bytes:
    """5 bytes; from the name, so that aggregations can be added and reordered in the pipeline file."""
    return table + zlib.crc32(name.encode()).to_bytes(4, "big")


def merge_partition(key: bytes, partitions: int) -> int:
    """The partition, of so many, that the totals of a key of table MERGE go to."""
    return zlib.crc32(key) % partitions


def encode_keys(prefix: bytes, ends: pa.ChunkedArray, groups: Sequence[pa.ChunkedArray]) -> list[bytes]:
    """`prefix` + window end + group, one key per row."""
    ordered = order_preserving(one_chunk(ends).to_numpy())
    if not groups:
        return [prefix + ordered[at : at + 8] + b"\x90" for at in range(0, len(ordered), 8)]
    packed = map(_pack, zip(*(_plain(g) for g in groups), strict=True))
    return [prefix + ordered[i * 8 : i * 8 + 8] + group for i, group in enumerate(packed)]


def decode_keys(
    keys: Sequence[bytes], prefix: int, groups: Sequence[tuple[str, pa.DataType]]
) -> tuple[pa.Array, list[pa.Array]]:
    """The window ends (int64 ms) and the group columns of keys with a prefix of `prefix` bytes."""
    raw = np.frombuffer(b"".join(k[prefix : prefix + 8] for k in keys), dtype=">u8").astype(np.uint64)
    ends = pa.array((raw ^ _SIGN).view(np.int64))
    if not groups:
        return ends, []
    columns = list(zip(*(_unpack(k[prefix + 8 :]) for k in keys), strict=True)) or [()] * len(groups)
    return ends, [_typed(list(column), kind) for column, (_, kind) in zip(columns, groups, strict=True)]


def order_preserving(numbers: npt.NDArray[np.int64]) -> bytes:
    """8 bytes per number that sort as the numbers do."""
    return (np.ascontiguousarray(numbers, dtype=np.int64).view(np.uint64) ^ _SIGN).astype(">u8").tobytes()


def one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return column


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Python values that msgpack writes the same way everywhere."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_decimal128(kind):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def _typed(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    if pa.types.is_date32(kind):
        return pa.array(values, pa.int32()).cast(kind)
    if pa.types.is_decimal128(kind):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, kind)
