"""Rows for Kafka, by topic and partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidegate.headers import Headers
from tidegate.record import OutRow
from tidegate.recordformat import PackedHeaders

Row = tuple[bytes | None, bytes | None, Headers | PackedHeaders, int | None]
"""Key, value, headers, and ms since the epoch or None."""


@dataclass(slots=True)
class Rows:
    """Records for one partition of one topic. `keys` and `values` have the same length; a null value is a tombstone.

    `headers`: of each row, all in one of the two forms; none without them. `timestamps` are in ms since the epoch; a row
    without one carries the time of sending.
    """

    topic: str
    partition: int
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers] | list[PackedHeaders] | None = None
    timestamps: list[int | None] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Row]:
        none: Headers = []
        headers = self.headers if self.headers is not None else [none] * len(self.keys)
        timestamps = self.timestamps if self.timestamps is not None else [None] * len(self.keys)
        return iter(zip(self.keys, self.values, headers, timestamps, strict=True))

    @property
    def packed(self) -> bool:
        """Whether the headers are in Kafka's form."""
        return self.headers is not None and len(self.headers) > 0 and isinstance(self.headers[0], PackedHeaders)

    @property
    def largest(self) -> int:
        """Bytes of the largest row, headers included."""
        return max((_size(*row[:3]) for row in self), default=0)


def by_partition(out: Sequence[OutRow]) -> list[Rows]:
    """The rows of each topic and partition, in their order."""
    grouped: dict[tuple[str, int], list[OutRow]] = {}
    for row in out:
        grouped.setdefault((row.topic, row.partition), []).append(row)
    return [
        Rows(
            topic,
            partition,
            [row.key for row in rows],
            [row.value for row in rows],
            _in_one_form([row.headers for row in rows]),
            [row.timestamp for row in rows],
        )
        for (topic, partition), rows in grouped.items()
    ]


def _in_one_form(headers: list[Headers | PackedHeaders]) -> list[Headers] | list[PackedHeaders]:
    """As they are, or all packed if some are."""
    packed = [one for one in headers if isinstance(one, PackedHeaders)]
    if not packed:
        return [one for one in headers if isinstance(one, list)]
    if len(packed) == len(headers):
        return packed
    return [one if isinstance(one, PackedHeaders) else PackedHeaders.of(one) for one in headers]


def _size(key: bytes | None, value: bytes | None, headers: Headers | PackedHeaders) -> int:
    told = len(key or b"") + len(value or b"")
    if isinstance(headers, PackedHeaders):
        return told + headers.size
    return told + sum(len(name) + len(data or b"") for name, data in headers)
