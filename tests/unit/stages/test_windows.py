"""Windows: which ones a record falls into."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.stages.sql import connect, query
from tidegate.stages.windows import NEVER, Windows

_TIMES = st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=20)


def spread(windows: Windows, times: list[int], bar: int = NEVER) -> list[tuple[int, int]]:
    """(index of the record, start of the window), sorted."""
    panes = windows.spread(np.array(times), np.full(len(times), bar))
    rows = range(len(times)) if panes.rows is None else panes.rows.tolist()
    return sorted(zip(rows, panes.starts.tolist(), strict=True))


def test_a_tumbling_window_starts_inclusive_and_ends_exclusive() -> None:
    """A record right at the start is in the window, one at the end is in the next."""
    assert spread(Windows(1000, 1000), [0, 999, 1000]) == [(0, 0), (1, 0), (2, 1000)]


def test_times_before_1970_are_floored() -> None:
    """A millisecond before the epoch is in the window that ends at the epoch."""
    assert spread(Windows(1000, 1000), [-1, -1000, -1001]) == [(0, -1000), (1, -1000), (2, -2000)]


def test_a_size_that_is_no_multiple_of_the_hop_gives_windows_by_turns() -> None:
    """With size 5 and hop 2 a record is in two or three windows, by where it falls."""
    assert [start for _, start in spread(Windows(5, 2), [4])] == [0, 2, 4]
    assert [start for _, start in spread(Windows(5, 2), [5])] == [2, 4]


def test_windows_that_had_closed_are_left_out() -> None:
    """A window whose end is at or before the bar does not take the record; one that ends a millisecond later does."""
    assert spread(Windows(1000, 500), [1600], bar=2000) == [(0, 1500)]
    assert spread(Windows(1000, 500), [1600], bar=1999) == [(0, 1000), (0, 1500)]


@pytest.mark.slow
@given(times=_TIMES, size=st.integers(1, 5000), parts=st.integers(1, 7), bar=st.integers(-(10**6), 10**6))
@settings(max_examples=60, deadline=None)
def test_windows_equal_plain_sql(times: list[int], size: int, parts: int, bar: int) -> None:
    """DuckDB, asked for every aligned start near a record whose window contains it, gives the same windows."""
    windows = Windows(size, max(1, size // parts))
    hop, steps = windows.hop, size // windows.hop + 2
    rows = pa.table({"i": range(len(times)), "t": times})
    truth = query(
        con := connect(),
        f"""SELECT i, s FROM (SELECT i, t, (floor(t / {hop}.0)::BIGINT - k) * {hop} AS s
            FROM rows, (SELECT unnest(range(-1, {steps})) AS k))
            WHERE s <= t AND t < s + {size} AND s + {size} > {bar}""",
        rows=rows,
    )
    con.close()
    expected = sorted(zip(truth["i"].to_pylist(), truth["s"].to_pylist(), strict=True))
    assert spread(windows, times, bar) == expected
    bars = np.full(len(times), bar)
    some, every = windows.misses_some(np.array(times), bars), windows.misses_all(np.array(times), bars)
    for index, time in enumerate(times):
        missed = windows.missed(time, bar)
        taken = [start for row, start in expected if row == index]
        assert (bool(missed), not taken) == (some[index], every[index])
        assert not set(missed) & set(taken)
