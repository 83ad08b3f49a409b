"""Sentry's arroyo: partition and offset, as text. It names neither the source topic nor the error."""

from __future__ import annotations

from typing import ClassVar

from dlq.dialects.base import UNKNOWN, Foreign, textual_origin

PARTITION = "original_partition"
OFFSET = "original_offset"


class Arroyo:
    """Read last: its names are the least particular ones."""

    name: ClassVar[str] = "arroyo"
    prefixes: ClassVar[tuple[str, ...]] = (PARTITION, OFFSET)

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        origin = textual_origin({**values, "topic": UNKNOWN.encode()}, "topic", PARTITION, OFFSET)
        return None if origin is None else Foreign(origin, None, None, None, None, None)
