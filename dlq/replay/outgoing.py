"""A dead letter as it is sent again: byte-identical unless it was mended, with its origin, without its failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dlq import headers as h
from dlq.document import moment
from dlq.index.tables import OPEN
from dlq.limits import header_size
from dlq.original import Original
from dlq.replay.mend import Mend, Mended
from dlq.replay.names import CANCELLED, GONE, INVALID, PARKED
from dlq.replay.raw import Chosen
from dlq.replay.targets import Targets
from tidegate.headers import REPLAY_JOB, REPLAY_OF, REPLAY_TO, Headers
from tidegate.record import TopicPartition
from tidegate.stages.repeats import sent_to

MOST_PARTITIONS = 100
"""Partitions that one transaction of a job writes to."""
_OVERHEAD = 512  # bytes: of the batch and the record around it; 2 for each header more than `header_size` says


class Outgoing(NamedTuple):
    """One record to be sent. `changed`: what was mended (key, value)."""

    chosen: Chosen
    target: TopicPartition
    key: bytes | None
    value: bytes | None
    headers: Headers
    original: Original
    changed: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes, with what Kafka adds."""
        return (
            len(self.key or b"") + len(self.value or b"") + sum(header_size(*one) for one in self.headers) + _OVERHEAD
        )


class Unsent(NamedTuple):
    """One letter that is not sent, and why."""

    chosen: Chosen
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class ByHand:
    """Key and value as somebody has written them, for letters by their row in the index."""

    records: Mapping[int, tuple[bytes | None, bytes | None]] = field(default_factory=dict)


class Preparer:
    """Turns letters into what is sent. `mend`: SQL assignments; `by_hand`: what somebody wrote, for an edit by hand."""

    def __init__(
        self, targets: Targets, max_replays: int, *, job: str, mend: Mend | None, by_hand: ByHand | None
    ) -> None:
        self._targets, self._max_replays, self._job = targets, max_replays, job
        self._mend, self._by_hand = mend, by_hand

    def prepare(
        self, chosen: Sequence[Chosen], letters: Sequence[Original | None]
    ) -> tuple[list[Outgoing], list[Unsent]]:
        """`letters`: the raw records of `chosen`, in the same order."""
        unsent: list[Unsent] = []
        left: list[tuple[Chosen, Original]] = []
        for one, letter in zip(chosen, letters, strict=True):
            refusal = self._refusal(one, letter)
            if refusal is not None:
                unsent.append(refusal)
            elif letter is not None:
                left.append((one, letter))
        outgoing: list[Outgoing] = []
        most = self._targets.max_bytes
        for (one, original), mended in zip(left, self._mended(left), strict=True):
            if isinstance(mended, str):
                unsent.append(Unsent(one, INVALID, mended))
                continue
            place = self._targets.place(original.origin, mended.key, key_is_new="key" in mended.changed)
            if isinstance(place, str):
                unsent.append(Unsent(one, INVALID, place))
                continue
            sent = (f"{self._job}/{one.position}".encode(), sent_to(place, mended.key, mended.value))
            headers = replay_headers(original, *sent, mended.changed)
            record = Outgoing(one, place, mended.key, mended.value, headers, original, mended.changed)
            if (size := record.size) > most:
                problem = f"topic {place.topic} does not take a record of {size} bytes (max.message.bytes)"
                unsent.append(Unsent(one, INVALID, problem))
                continue
            outgoing.append(record)
        return outgoing, unsent

    def _refusal(self, one: Chosen, letter: Original | None) -> Unsent | None:
        if one.state != OPEN:
            return Unsent(one, CANCELLED, f"it was {one.state} before its turn came")
        if one.replays >= self._max_replays:
            return Unsent(one, PARKED, f"it was replayed {one.replays} times; deadLetters.maxReplays allows no more")
        if letter is None:
            place = f"{one.topic} partition {one.partition} offset {one.offset}"
            return Unsent(one, GONE, f"its record is not in the topic any more ({place}): retention has deleted it")
        cut = {"key", "value", "headers"} & set(letter.earlier.truncated)
        if cut and self._by_hand is None:
            origin = letter.origin
            what = f"{', '.join(sorted(cut))} did not fit and was cut"
            where = f"the whole record is at {origin.topic} partition {origin.partition} offset {origin.offset}"
            return Unsent(one, INVALID, f"{what}; {where}")
        return None

    def _mended(self, left: Sequence[tuple[Chosen, Original]]) -> list[Mended | str]:
        if self._by_hand is not None:
            return [self._by_hand_of(one, original, self._by_hand) for one, original in left]
        if self._mend is not None:
            return self._mend.apply([(original.key, original.value) for _, original in left])
        return [Mended(original.key, original.value, ()) for _, original in left]

    def _by_hand_of(self, one: Chosen, original: Original, by_hand: ByHand) -> Mended | str:
        given = by_hand.records.get(one.letter)
        if given is None:
            return "it was edited by hand in a process that ended before it was sent: edit it again"
        key, value = given
        parts = (("key", key == original.key), ("value", value == original.value))
        return Mended(key, value, tuple(name for name, same in parts if not same))


def cut(
    outgoing: list[Outgoing], unsent: list[Unsent], upto: int, most: int
) -> tuple[list[Outgoing], list[Unsent], int]:
    """The first records, at most `most` and to at most MOST_PARTITIONS partitions, with what is not sent on their way;
    and the position that they come to."""
    partitions = set()
    for number, record in enumerate(outgoing):
        partitions.add(record.target)
        if number == most or len(partitions) > MOST_PARTITIONS:
            upto = outgoing[number - 1].chosen.position
            return outgoing[:number], [one for one in unsent if one.chosen.position < upto], upto
    return outgoing, unsent, upto


def replay_headers(original: Original, job: bytes, to: bytes, changed: Sequence[str]) -> Headers:
    """Its own headers, without those of an earlier replay, behind those that link it to its dead letter and its origin.
    `job`, `to`: REPLAY_JOB and REPLAY_TO.

    Ours come first: when headers have to be cut (dlq/limits.py), the last are.
    """
    origin = original.origin
    headers: Headers = [
        (REPLAY_OF, original.id.encode()),
        (REPLAY_JOB, job),
        (REPLAY_TO, to),
        (h.REPLAYS, b"%d" % (original.earlier.replays + 1)),
        (h.ORIGIN_TOPIC, origin.topic.encode()),
        (h.ORIGIN_PARTITION, b"%d" % origin.partition),
        (h.ORIGIN_OFFSET, b"%d" % origin.offset),
    ]
    if origin.timestamp is not None:
        headers.append((h.ORIGIN_TIMESTAMP, b"%d" % origin.timestamp))
    if origin.timestamp_type is not None:
        headers.append((h.ORIGIN_TIMESTAMP_TYPE, origin.timestamp_type.encode()))
    if (first := moment(original.first_failure)) is not None:  # another tool's record can have any timestamp
        headers.append((h.FAILED_FIRST, first.encode()))
    if changed:
        headers.append((h.REPLAY_EDITED, ",".join(changed).encode()))
    return headers + [header for header in original.headers if not header[0].startswith(h.REPLAY_PREFIX)]
