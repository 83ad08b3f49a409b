"""What waits to be written of one partition of the topic, and when it is due."""

from __future__ import annotations

from dataclasses import dataclass, field

from dlq.s3.files import Kept
from dlq.s3.naming import Cut
from tidegate.config.queue import DeadLetterConfig
from tidegate.headers import Headers
from tidegate.record import TopicPartition


@dataclass(slots=True)
class Buffer:
    """Records in offset order. `upto`: the last offset of a cut that was agreed on before and may have been written in part:
    it is written again, as it was. `committed`: the group's offset as far as is known here (-1: not)."""

    tp: TopicPartition
    upto: int | None = None
    committed: int = -1
    records: list[Kept] = field(default_factory=list)
    nbytes: int = 0
    since: float = 0.0

    def add(self, kept: Kept, now: float) -> None:
        """`now`: monotonic seconds."""
        if not self.records:
            self.since = now
        self.records.append(kept)
        self.nbytes += _size(kept)

    def due(self, config: DeadLetterConfig) -> float:
        """From when on it is to be written (monotonic seconds); infinity while there is nothing."""
        if not self.records:
            return float("inf")
        if self.upto is not None and self.records[-1].offset >= self.upto:
            return 0.0
        full = len(self.records) >= config.buffer_records or self.nbytes >= config.buffer_bytes
        return 0.0 if full and self.upto is None else self.since + config.buffer_age / 1000

    def cut(self) -> tuple[Cut, list[Kept]]:
        """What is to be written now: the cut that was agreed on, else everything."""
        upto = self.records[-1].offset if self.upto is None else self.upto
        taken = [kept for kept in self.records if kept.offset <= upto]
        first = taken[0].offset if taken else upto
        return Cut(self.tp, first, upto), taken

    def drop(self, cut: Cut, now: float) -> None:
        """The cut is written."""
        self.records = [kept for kept in self.records if kept.offset > cut.last]
        self.nbytes = sum(map(_size, self.records))
        self.upto, self.committed, self.since = None, cut.last + 1, now


def _size(kept: Kept) -> int:
    return len(kept.key or b"") + len(kept.value or b"") + _headers_size(kept.headers)


def _headers_size(headers: Headers) -> int:
    return sum(len(name) + len(value or b"") for name, value in headers)
