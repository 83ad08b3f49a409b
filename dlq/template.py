"""The headers of letters of one kind: most are the same on all of them, and are put into bytes once; the others are slots."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from functools import cached_property

from tidegate.headers import Header, Headers
from tidegate.recordformat import FEW, SMALL, PackedHeaders, pack_header, pack_name, varint

_INT64 = struct.Struct(">q")


class Slot(IntEnum):
    """What a letter says itself, and how: text in UTF-8, or a big-endian int64. Times are in ms."""

    ID = 0
    REASONS = 1  # as JSON
    OFFSET = 2
    TIMESTAMP = 3
    OFFSET_INT64 = 4
    TIMESTAMP_INT64 = 5


_INT64_SLOTS = frozenset({Slot.OFFSET_INT64, Slot.TIMESTAMP_INT64})

Layout = list[tuple[str, bytes | Slot]]
"""Headers in their order. One whose slot has no value in a letter is left out there."""

Values = tuple[bytes | None, ...]
"""What the slots have in one letter, each at its number."""


class Template:
    """`own` headers, then those that only few letters have, then the `dialect`'s. What is not asked for is not made ready."""

    def __init__(self, own: Layout, dialect: Layout) -> None:
        self._own, self._dialect = own, dialect
        self._has_int64 = any(value in _INT64_SLOTS for _, value in dialect)

    def values(self, id: str, reasons: bytes, offset: int, timestamp: int | None) -> Values:
        """What fills the slots of a letter. `reasons`: JSON. `timestamp`: Kafka's, ms."""
        texts = (id.encode(), reasons, b"%d" % offset, None if timestamp is None else b"%d" % timestamp)
        if not self._has_int64:
            return texts
        return (*texts, _INT64.pack(offset), None if timestamp is None else _INT64.pack(timestamp))

    def fill(self, ahead: Sequence[Header], values: Values, more: Headers) -> Headers:
        """A letter's headers behind those `ahead`. `more`: those that go between own and dialect."""
        own, dialect = self._flat
        return [*ahead, *own.fill(values), *more, *dialect.fill(values)]

    def pack(self, ahead: Sequence[Header], values: Values, more: Headers) -> PackedHeaders:
        """The same in Kafka's form."""
        if not ahead and not more:  # nearly always
            return self._whole.pack(values)
        own, dialect = self._packed
        parts = PackedHeaders.of(ahead), own.pack(values), PackedHeaders.of(more), dialect.pack(values)
        return PackedHeaders(sum(part.count for part in parts), [piece for part in parts for piece in part.pieces])

    @cached_property
    def _flat(self) -> tuple[_Flat, _Flat]:
        return _Flat(self._own), _Flat(self._dialect)

    @cached_property
    def _packed(self) -> tuple[_Packed, _Packed]:
        return _Packed(self._own), _Packed(self._dialect)

    @cached_property
    def _whole(self) -> _Packed:
        return _Packed([*self._own, *self._dialect])


class _Flat:
    """A layout as steps: what is shared up to a slot, then that slot; and what is shared behind the last."""

    def __init__(self, layout: Layout) -> None:
        self._steps: list[tuple[Headers, str, int]] = []
        self._rest: Headers = []
        for name, value in layout:
            if isinstance(value, Slot):
                self._steps.append((self._rest, name, int(value)))
                self._rest = []
            else:
                self._rest.append((name, value))

    def fill(self, values: Values) -> Headers:
        headers: Headers = []
        for shared, name, slot in self._steps:
            headers += shared
            value = values[slot]
            if value is not None:
                headers.append((name, value))
        headers += self._rest
        return headers


class _Packed:
    """The same in bytes, with a hole for each slot's length and one for its value. A loop over the slots takes half the time of
    one that puts the pieces together."""

    def __init__(self, layout: Layout) -> None:
        self._count = len(layout)
        self._pieces: list[bytes] = []
        self._holes: list[tuple[int, int, bytes]] = []  # where, the slot, what stands before it where it is left out
        shared = b""
        for name, value in layout:
            if isinstance(value, Slot):
                self._holes.append((len(self._pieces) + 1, int(value), shared))
                self._pieces += (shared + pack_name(name), b"", b"")
                shared = b""
            else:
                shared += pack_header(name, value)
        self._pieces.append(shared)

    def pack(self, values: Values) -> PackedHeaders:
        pieces, count = self._pieces.copy(), self._count
        for at, slot, shared in self._holes:
            value = values[slot]
            if value is None:
                pieces[at - 1] = shared
                count -= 1
            else:
                size = len(value)
                pieces[at] = SMALL[size] if size < FEW else varint(size)
                pieces[at + 1] = value
        return PackedHeaders(count, pieces)
