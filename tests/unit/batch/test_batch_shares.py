"""How a backlog is cut into micro-batches, and a micro-batch into tasks."""

from __future__ import annotations

import math
from itertools import count

from hypothesis import example, given
from hypothesis import strategies as st

from batch.fetch import BEGINNING, Stretch
from batch.microbatch import shared_out
from batch.source import cut, even_limit
from tidegate.record import TopicPartition

BACKLOGS = st.lists(st.integers(0, 5_000), min_size=1, max_size=12)


def micro_batches(backlog: list[int], limit: int) -> list[int]:
    """Offsets of each, as Spark cuts them: every partition its proportion of the limit, rounded up below one, else down."""
    left, sizes = list(backlog), []
    while total := sum(left):
        shares = [limit * n / total for n in left]
        taken = (
            left
            if total <= limit
            else [min(n, math.ceil(s) if s < 1 else math.floor(s)) for n, s in zip(left, shares, strict=True)]
        )
        left = [n - took for n, took in zip(left, taken, strict=True)]
        sizes.append(sum(taken))
    return sizes


@given(backlog=BACKLOGS, most=st.integers(1, 6_000))
@example(backlog=[249_483, 250_974, 249_218, 250_325], most=500_000)
def test_a_backlog_is_cut_into_as_few_micro_batches_as_the_limit_allows(backlog: list[int], most: int) -> None:
    """None of them is larger than the limit by more than an offset for each partition, and no few offsets are left over."""
    sizes = micro_batches(backlog, even_limit(sum(backlog), most, len(backlog)))
    assert len(sizes) <= math.ceil(sum(backlog) / most)
    assert all(size <= most + 2 * len(backlog) for size in sizes)


@given(backlog=BACKLOGS, most=st.integers(1, 6_000) | st.none())
def test_a_backlog_that_is_cut_here_is_never_over_the_limit(backlog: list[int], most: int | None) -> None:
    """As few micro-batches as the limit allows, the largest an offset larger than the smallest; each partition goes on in each by
    its proportion, give or take what was rounded off."""
    ends = {TopicPartition("t", number): 100 + n for number, n in enumerate(backlog)}
    at, sizes = dict.fromkeys(ends, 100), list[int]()
    while left := {tp: (at[tp], end) for tp, end in ends.items() if at[tp] < end}:
        after = cut(left, most)
        assert all(start <= after[tp] <= end for tp, (start, end) in left.items())
        sizes.append(sum(after.values()) - sum(at[tp] for tp in left))
        for tp, (start, end) in left.items():
            share = sizes[-1] * (end - start) / sum(end - start for start, end in left.values())
            assert abs(after[tp] - start - share) <= 1
        at |= after
    assert len(sizes) == math.ceil(sum(backlog) / most) if most else len(sizes) <= 1
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert most is None or max(sizes, default=0) <= most


@given(backlog=BACKLOGS, tasks=st.integers(1, 6))
def test_each_stretch_has_one_task_and_no_task_has_much_more_than_its_part(backlog: list[int], tasks: int) -> None:
    """As many tasks as can run at once, or as there are stretches; the largest is within a third of the least possible."""
    backlog = [n or 1 for n in backlog]  # a stretch without records is none
    numbers = count()
    stretches = [Stretch(TopicPartition("t", next(numbers)), 0, n) for n in backlog]
    shares = shared_out(stretches, tasks)
    assert len(shares) == min(tasks, len(stretches))
    assert sorted((s for share in shares for s in share), key=lambda s: s.tp) == stretches
    assert all(shares)
    largest = max(sum(s.end for s in share) for share in shares)
    assert largest <= 4 / 3 * max(
        sum(backlog) / len(shares), 2 * sorted(backlog)[-2] if len(backlog) > tasks else 0, *backlog
    )


def test_a_stretch_from_the_logs_beginning_is_as_long_as_its_end_says() -> None:
    """BEGINNING is a negative number, no offset."""
    a, b, c = (Stretch(TopicPartition("t", n), start, 10) for n, start in enumerate((BEGINNING, 0, 5)))
    assert shared_out([a, b, c], 2) == [[a, c], [b]]
