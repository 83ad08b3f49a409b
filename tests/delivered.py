"""Records as the transport delivers them, without a broker."""

from __future__ import annotations

from typing import NamedTuple


class Record(NamedTuple):
    """As the transport delivers it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
