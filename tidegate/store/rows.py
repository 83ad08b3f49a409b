"""The partition row as bytes, for the state changelog of a pipeline that has no SQL store."""

from __future__ import annotations

import msgspec

from tidegate.errors import TidegateError
from tidegate.stages.batch import PartitionState

PARTITION_KEY = b"\x00P"
"""The key of the partition row in a changelog; no window's key begins with a zero byte and a P."""


_DECODER = msgspec.msgpack.Decoder(PartitionState)


def encode_state(state: PartitionState) -> bytes:
    """A msgpack map of the state's fields, the ledger as a map of its own."""
    return msgspec.msgpack.encode(state)


def decode_state(data: bytes) -> PartitionState:
    """The state that `encode_state` wrote. A field added since then has its default, one removed since then is skipped.

    Raises TidegateError when the bytes are no partition row.
    """
    try:
        return _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise TidegateError(f"the changelog's partition row cannot be read ({error}): {data[:64]!r}") from error
