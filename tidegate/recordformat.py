"""Kafka's record format 2 (KIP-98), as far as it is written here and not by a client: numbers, headers, records.

A client puts each record's headers into bytes anew. Where many records have most of them in common, as dead letters do, whoever
makes the records can do that once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tidegate.headers import Header

_NULL = b"\x01"  # the length of what is null: −1


def varint(number: int) -> bytes:
    """A number of up to 64 bits with its sign, as lengths, offsets and times are written: zigzag, seven bits a byte."""
    rest = (number << 1) ^ (number >> 63)
    found = bytearray()
    while rest > 0x7F:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


FEW = 4096
SMALL = [varint(number) for number in range(FEW)]
"""Nearly all that are written: a look costs a tenth."""


def _length(data: bytes) -> bytes:
    """What is written in front of these bytes."""
    size = len(data)
    return SMALL[size] if size < FEW else varint(size)


class PackedHeaders(msgspec.Struct, frozen=True, gc=False):
    """A record's headers in bytes: `count` of them, in pieces that are put together with the rest of it. To iterate over them
    is to read them."""

    count: int
    pieces: list[bytes]

    @classmethod
    def of(cls, headers: Iterable[Header]) -> PackedHeaders:
        packed = [pack_header(name, value) for name, value in headers]
        return cls(len(packed), packed)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[Header]:
        at, data = 0, b"".join(self.pieces)
        for _ in range(self.count):
            name, at = _read(data, at)
            value, at = _read(data, at)
            yield (name or b"").decode(), value


def pack_header(name: str, value: bytes | None) -> bytes:
    return pack_name(name) + (_NULL if value is None else _length(value) + value)


def pack_name(name: str) -> bytes:
    """The beginning of a header, behind which its value comes."""
    data = name.encode()
    return _length(data) + data


def pack_record(
    number: int, since: int, key: bytes | None, value: bytes | None, headers: PackedHeaders
) -> tuple[bytes, bytes]:
    """A record, and in front of it its length. `number`: its place in its batch; `since`: ms after the batch's first."""
    count = headers.count
    body = b"".join(
        (
            b"\0",  # attributes: none are in use
            SMALL[since] if 0 <= since < FEW else varint(since),
            SMALL[number] if number < FEW else varint(number),
            _NULL if key is None else _length(key),
            key or b"",
            _NULL if value is None else _length(value),
            value or b"",
            SMALL[count] if count < FEW else varint(count),
            *headers.pieces,
        )
    )
    return _length(body), body


def _read(data: bytes, at: int) -> tuple[bytes | None, int]:
    """The bytes whose length stands at `at`, and where the next begin."""
    shift = size = 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    size = (size >> 1) ^ -(size & 1)
    return (None, at) if size < 0 else (data[at : at + size], at + size)
