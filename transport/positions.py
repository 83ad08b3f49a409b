"""What was delivered of each partition and what is done; what is held back and why. Plain bookkeeping, no I/O."""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import Any

from transport.batch import SourceBatch
from transport.thread import End

# Why nothing is fetched or delivered of a partition; other reasons are the callers' own.
OPENING, SEEKING, LOST, REVOKED, AWAY = "opening", "seeking", "out of range", "revoked", "broker away"

_epochs = count(
    1
)  # never used twice in a process, so that a batch of before a rebalance is never taken for a current one


class Position:
    """One assigned partition.

    `held`: batches fetched and not yet delivered. `in_flight`: delivered messages that are not acknowledged, oldest
    first. `done`: the offset after the last acknowledged batch (None: none since the partition was opened). `epoch`
    grows with every seek. `holds`: the reasons for which nothing is fetched or delivered.
    """

    __slots__ = (
        "done",
        "empty_first_ms",
        "empty_last_ms",
        "end",
        "epoch",
        "held",
        "holds",
        "in_flight",
        "next",
        "reported",
    )

    def __init__(self) -> None:
        self.holds: set[str] = set()
        self.restart(None)

    def restart(self, offset: int | None) -> None:
        """Forget all that was fetched and delivered: the partition goes on at `offset`."""
        for message in getattr(self, "in_flight", ()):
            message.generation_id = (
                None  # what still waits in an agent's queue is skipped by Faust, and not acknowledged
            )
        self.epoch = next(_epochs)
        self.held: deque[SourceBatch] = deque()
        self.in_flight: deque[Any] = deque()
        self.next: int | None = offset
        self.done: int | None = None
        self.reported: int | None = None
        self.end: End | None = None
        self.empty_first_ms: int | None = None
        self.empty_last_ms: int | None = None

    def sweep(self) -> None:
        """Take the acknowledged messages off the front: offsets move past finished batches only, in order."""
        while self.in_flight and self.in_flight[0].acked:
            self.done = self.in_flight.popleft().offset + 1

    def learn(self, end: End) -> None:
        """Note a fetch response. An empty one at the end of the log is evidence of idleness; only a response is."""
        previous, self.end = self.end, end
        at_end = end.position >= end.stable and not end.pending
        if not at_end or previous is None or previous.position != end.position:
            self.empty_first_ms = self.empty_last_ms = None
        elif end.answered_ms > previous.answered_ms:  # a later response than the one that brought us here: it was empty
            self.empty_first_ms = self.empty_first_ms or end.answered_ms
            self.empty_last_ms = end.answered_ms

    @property
    def at_end(self) -> bool:
        return self.empty_last_ms is not None and not self.held

    @property
    def idle_seconds(self) -> float:
        if self.empty_first_ms is None or self.empty_last_ms is None or self.held:
            return 0.0
        return (self.empty_last_ms - self.empty_first_ms) / 1000
