"""What of a dead letter goes back: which it is, the record as it was, and what stays when it fails again."""

from __future__ import annotations

import msgspec

from dlq import headers as h
from dlq.dialects import UNKNOWN, Foreign, Origin, last_values, read_foreign
from dlq.dialects.base import text
from dlq.earlier import Earlier, kept_headers, read_earlier
from tidegate.headers import Headers
from tidegate.record import TopicPartition, record_id

SILENT = Foreign(Origin(UNKNOWN, -1, -1), None, None, None, None, None)
"""What headers tell that are nobody's, or ours."""


class Original(msgspec.Struct, frozen=True, gc=False):  # replays make a hundred thousand, and not one is in a cycle
    """Read from a record of a dead-letter topic. All else that it says is in `Envelope`, which takes twice as long to make.

    `headers`: the record's own. `first_failure`: ms. `foreign`: what another tool's headers tell.
    """

    id: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    origin: Origin
    first_failure: int
    earlier: Earlier
    foreign: Foreign

    @classmethod
    def of(
        cls,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        tp: TopicPartition,
        offset: int,
        timestamp: int,
        values: dict[str, bytes] | None = None,
    ) -> Original:
        """As `Envelope.from_record`, which see."""
        values = last_values(headers) if values is None else values
        earlier = read_earlier(values)
        own_id = text(values, h.ID)
        foreign = (None if own_id is not None else read_foreign(values)) or SILENT
        origin = earlier.origin or (Origin(*tp, offset) if foreign is SILENT else foreign.origin)
        return cls(
            own_id or _id(origin, tp, offset),
            key,
            value,
            tuple([headers[index] for index in kept_headers(_names(headers, values))]),
            origin,
            timestamp if earlier.first_failure is None else earlier.first_failure,
            earlier,
            foreign,
        )


def _id(origin: Origin, tp: TopicPartition, offset: int) -> str:
    """Of a letter that does not say: where the record was that failed, if that is known, else where the letter is."""
    if origin.topic != UNKNOWN:
        return record_id(TopicPartition(origin.topic, origin.partition), origin.offset)
    return record_id(tp, offset)


def _names(headers: Headers, values: dict[str, bytes]) -> tuple[str, ...]:
    """The headers' names in their order: those of `values`, unless one is there twice or has no value."""
    return tuple(values) if len(values) == len(headers) else tuple([name for name, _ in headers])
