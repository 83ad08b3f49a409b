"""Splits of the log: what a task must know of those before its own, so that lateness is what one reading finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch.backfill.splits import Looked, Split, cut, overlapping, states_before
from tidegate.record import TopicPartition
from tidegate.stages.repeats import Memory

TP, OTHER = TopicPartition("t", 0), TopicPartition("t", 1)


def test_a_log_is_cut_without_gaps() -> None:
    """By partition and offset, each at most as large as told; an empty partition has none."""
    bounds = {OTHER: (5, 12), TP: (0, 4), TopicPartition("t", 2): (3, 3)}
    assert cut(bounds, 3) == [
        Split(TP, 0, 3),
        Split(TP, 3, 4),
        Split(OTHER, 5, 8),
        Split(OTHER, 8, 11),
        Split(OTHER, 11, 12),
    ]
    assert cut(bounds, None) == [Split(TP, 0, 4), Split(OTHER, 5, 12)]


@given(st.lists(st.tuples(st.booleans(), st.none() | st.integers(-5, 5)), max_size=12))
def test_the_high_water_before_a_split_is_the_largest_of_those_before_it(found: list[tuple[bool, int | None]]) -> None:
    """In its own partition alone, whatever each split has by itself."""
    counts, looked = {TP: 0, OTHER: 0}, []
    for first, mark in found:
        tp = TP if first else OTHER
        looked.append(Looked(Split(tp, counts[tp], counts[tp] + 1), 1, mark))
        counts[tp] += 1
    for split, before in states_before(looked).items():
        earlier = [one.high_water for one in looked if one.split.tp == split.tp and one.split.start < split.start]
        assert before.high_water == max((mark for mark in earlier if mark is not None), default=None)
        assert before.upto == split.start - 1


def test_the_replays_before_a_split_are_those_of_the_splits_before_it() -> None:
    """In its own partition alone: each split begins with what the log has shown of each job until then."""
    one, other = b"\x00" * 8, b"\x01" * 8
    passages = [(TP, ((one, 5),)), (OTHER, ((one, 9),)), (TP, ()), (TP, ((other, 2), (one, 3))), (TP, ((one, 8),))]
    looked = [Looked(Split(tp, n, n + 1), passages=found) for n, (tp, found) in enumerate(passages)]
    before = [state.replays for state in states_before(looked).values()]
    assert before == [_memory(), _memory(), _memory((one, 5)), _memory((one, 5)), _memory((other, 2), (one, 5))]


def _memory(*seen: tuple[bytes, int]) -> bytes:
    memory = Memory()
    for job, position in seen:
        memory.see(job, position)
    return memory.encoded()


def test_only_splits_with_records_of_the_windows_are_read_again() -> None:
    """A window that starts before the end takes records until its own end; a split without valid records has none."""
    looked = [
        Looked(Split(TP, n, n + 1), 1, latest, earliest, latest)
        for n, (earliest, latest) in enumerate([(0, 9), (0, 10), (29, 40), (30, 40)])
    ]
    looked.append(Looked(Split(TP, 4, 5)))
    assert [split.start for split in overlapping(looked, 10, 20, 10)] == [1, 2]
