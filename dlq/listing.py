"""Which dead letters to list, and how many there are of each kind: in memory that does not grow with the topic."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from dlq.reader import DeadLetter

_MOST_GROUPS = 10_000  # a pipeline has tens; a topic that anybody writes to can have any number


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to list. `error`: an error type in any case, or a fingerprint. `since`: ms since the epoch."""

    stage: str | None = None
    error: str | None = None
    since: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        envelope = letter.envelope
        if self.stage is not None and envelope.stage != self.stage:
            return False
        if self.since is not None and envelope.last_failure < self.since:
            return False
        return self.error is None or self.error.lower() in (envelope.error_type.lower(), envelope.fingerprint)


@dataclass(slots=True)
class Group:
    """Dead letters with one fingerprint. `message` is the newest one's; times in ms."""

    fingerprint: str
    stage: str
    error_type: str
    message: str
    count: int
    first: int
    last: int


@dataclass(slots=True)
class Groups:
    """Counts by fingerprint. `others`: dead letters of further kinds, once there are too many kinds."""

    by_fingerprint: dict[str, Group] = field(default_factory=dict)
    total: int = 0
    others: int = 0

    def counting(self, letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """The same letters, counted as they pass."""
        for letter in letters:
            self._count(letter)
            yield letter

    def largest(self, limit: int) -> list[Group]:
        return heapq.nlargest(limit, self.by_fingerprint.values(), key=lambda group: group.count)

    def _count(self, letter: DeadLetter) -> None:
        envelope = letter.envelope
        self.total += 1
        group = self.by_fingerprint.get(envelope.fingerprint)
        if group is None:
            if len(self.by_fingerprint) >= _MOST_GROUPS:
                self.others += 1
                return
            group = Group(
                envelope.fingerprint,
                envelope.stage,
                envelope.error_type,
                envelope.message,
                count=0,
                first=envelope.first_failure,
                last=envelope.last_failure,
            )
            self.by_fingerprint[envelope.fingerprint] = group
        group.count += 1
        group.first = min(group.first, envelope.first_failure)
        if envelope.last_failure >= group.last:
            group.last, group.message = envelope.last_failure, envelope.message


def newest(letters: Iterable[DeadLetter], limit: int) -> list[DeadLetter]:
    """The `limit` letters that failed last, newest first."""
    return heapq.nlargest(limit, letters, key=lambda letter: (letter.envelope.last_failure, letter.offset))


def without_payload(letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
    """The letters without what a table does not show, so that fifty large ones take no room."""
    for letter in letters:
        envelope = replace(letter.envelope, key=None, value=None, headers=(), stack=None, context=None)
        yield letter._replace(envelope=envelope)
