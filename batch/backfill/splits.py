"""The log of a range in splits, each for one task; and what a task must know of those before its own.

Lateness depends on all that came before in the partition. A task begins in the middle all the same: the high water before a
split is the largest event time of the splits before it, which a first look at them all has found. It finds too which replays have
passed, so that one which was sent again counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.repeats import Memory


class Split(NamedTuple):
    """Offsets of one source partition, `end` not included."""

    tp: TopicPartition
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Looked:
    """What a first look at a split has found. `high_water`: its largest valid event time on the first way; `earliest` and
    `latest`: of all valid records. In ms; None: there is none. `passages`: of replays, as tidegate.stages.repeats has them."""

    split: Split
    records: int = 0
    high_water: int | None = None
    earliest: int | None = None
    latest: int | None = None
    passages: tuple[tuple[bytes, int], ...] = ()


def cut(bounds: Mapping[TopicPartition, tuple[int, int]], size: int | None) -> list[Split]:
    """Splits of at most `size` offsets (None: a partition is one), by partition and offset. `bounds`: start and end."""
    return [
        Split(tp, start, min(start + step, high))
        for tp, (low, high) in sorted(bounds.items())
        for step in [size or max(high - low, 1)]
        for start in range(low, high, step)
    ]


def states_before(looked: Iterable[Looked]) -> dict[Split, PartitionState]:
    """What each split begins with: the high water and the replays before it. `looked`: every split of the log from its
    beginning, in order."""
    before: dict[Split, PartitionState] = {}
    marks: dict[TopicPartition, int | None] = {}
    replays: dict[TopicPartition, Memory] = {}
    for one in looked:
        tp, start = one.split.tp, one.split.start
        mark, memory = marks.get(tp), replays.setdefault(tp, Memory())
        before[one.split] = PartitionState(start - 1, mark, replays=memory.encoded())
        if one.high_water is not None:
            marks[tp] = one.high_water if mark is None else max(mark, one.high_water)
        for job, position in one.passages:
            memory.see(job, position)
    return before


def overlapping(looked: Sequence[Looked], begin: int, end: int, longest: int) -> list[Split]:
    """The splits that have a record of a window which starts in `begin` ≤ start < `end` (ms). `longest`: window, ms."""
    return [
        one.split
        for one in looked
        if one.earliest is not None and one.latest is not None and one.earliest < end + longest and one.latest >= begin
    ]
