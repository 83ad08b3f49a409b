"""What the retry agent has read of one partition, in offset order, and how it is sent when its records are not taken.

All partitions are sent in one transaction as long as all goes well. When something in it is not taken, each of them is sent
alone; one that is still not taken is sent in ever smaller shares, until the record that is not taken is alone at its head.
That one is tried again and again, and holds up those behind it, but no other partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import Message

MOST = 2_000
"""Records of one transaction."""
_AHEAD_RECORDS, _AHEAD_BYTES = 1_000, 4_194_304  # of one partition, read and not yet due
_WAIT = (0.5, 10.0)  # seconds: first and longest wait before one record is tried again


@dataclass(slots=True)
class Line:
    """`alone`: so many of its records are sent at most, in a transaction of their own; None: with those of the others.
    `not_before`: when it is tried again (monotonic seconds)."""

    messages: deque[Message] = field(default_factory=deque)
    nbytes: int = 0
    paused: bool = False
    alone: int | None = None
    not_before: float = 0.0
    wait: float = _WAIT[0]

    @property
    def is_full(self) -> bool:
        return len(self.messages) >= _AHEAD_RECORDS or self.nbytes >= _AHEAD_BYTES

    def append(self, message: Message) -> None:
        self.messages.append(message)
        self.nbytes += len(message)

    def popleft(self) -> Message:
        message = self.messages.popleft()
        self.nbytes -= len(message)
        return message

    def not_taken(self, share: Sequence[Message], now: float, *, with_others: bool) -> None:
        """The first messages, which are to be sent again. `with_others`: so that perhaps these were not at fault."""
        self.messages.extendleft(reversed(share))
        self.nbytes += sum(map(len, share))
        if with_others:
            self.alone = MOST
        elif len(share) > 1:
            self.alone = len(share) // 2
        else:
            self.alone, self.not_before = 1, now + self.wait
            self.wait = min(self.wait * 2, _WAIT[1])

    def taken(self) -> None:
        """It goes on in greater shares, and then with the others."""
        self.wait = _WAIT[0]
        if self.alone is not None:
            self.alone = None if self.alone >= MOST else self.alone * 2
