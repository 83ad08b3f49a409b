"""A batch's answers as bytes, for the row that is written with its results: what to take, should it have to be repeated.

One byte of version and the CRC-32 of what follows: the length of the rest when it is decompressed, and, compressed by LZ4, a
msgpack map with the rows as an Arrow IPC stream. 8 192 records that a handler gave back at ~200 bytes each take about a megabyte.
"""

from __future__ import annotations

import struct
import zlib

import msgspec
import numpy as np
import pyarrow as pa

from tidegate.errors import TidegateError
from tidegate.record import TopicPartition
from tidegate.stages.batch import Answers, Rejection

_VERSION = 2  # 1 had the reasons' names in another spelling
_HEAD = struct.Struct(">BI")  # version, CRC-32 of the rest
_LENGTH = struct.Struct(">Q")
_CODEC = pa.Codec("lz4")


class _Body(msgspec.Struct):
    after: int
    upto: int
    rejected: list[Rejection]
    filtered: bytes  # int64, little-endian
    rows: bytes | None  # an Arrow IPC stream


_DECODER = msgspec.msgpack.Decoder(_Body)


def encode_answers(answers: Answers) -> bytes:
    """For StoreBatch.answers."""
    rows = None if answers.rows is None else _to_ipc(answers.rows)
    filtered = answers.filtered.astype("<i8").tobytes()
    rejected = [answers.rejected[offset] for offset in sorted(answers.rejected)]
    body = msgspec.msgpack.encode(_Body(answers.after, answers.upto, rejected, filtered, rows))
    rest = _LENGTH.pack(len(body)) + bytes(_CODEC.compress(body))
    return _HEAD.pack(_VERSION, zlib.crc32(rest)) + rest


def decode_answers(data: bytes, tp: TopicPartition) -> Answers:
    """What `encode_answers` was given. `tp` is for the error.

    Raises TidegateError when the bytes are not whole, or of another version.
    """
    if len(data) < _HEAD.size:
        raise _unreadable(tp, f"{len(data)} bytes, which is less than their head")
    version, checksum = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise _unreadable(tp, f"version {version}, where this tidegate knows {_VERSION}")
    rest = memoryview(data)[_HEAD.size :]
    if zlib.crc32(rest) != checksum:
        raise _unreadable(tp, "the checksum is another")
    try:
        body = _DECODER.decode(_CODEC.decompress(rest[_LENGTH.size :], decompressed_size=_LENGTH.unpack_from(rest)[0]))
        rows = None if body.rows is None else pa.ipc.open_stream(body.rows).read_all()
        filtered = np.frombuffer(body.filtered, "<i8").astype(np.int64)
    except (msgspec.DecodeError, pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise _unreadable(tp, str(error)) from error
    rejected = {one.offset: one for one in body.rejected}
    return Answers(body.after, body.upto, rows, rejected, filtered, settled=True)


def _to_ipc(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows.combine_chunks())
    return bytes(sink.getvalue().to_pybytes())


def _unreadable(tp: TopicPartition, problem: str) -> TidegateError:
    return TidegateError(
        f"the answers that the database keeps of the last batch of {tp} cannot be read: {problem}\n"
        "  hint:     they were changed from outside, or written by another version of tidegate: restore the database, or "
        "start once with that version"
    )
