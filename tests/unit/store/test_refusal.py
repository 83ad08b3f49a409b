"""Finding refused rows by bisection."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.store.refusal import refused_rows


@given(st.integers(0, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(n - 1, 0)), max_size=n))))
def test_exactly_the_guilty_rows_are_named(case: tuple[int, set[int]]) -> None:
    """Whichever rows are refused, they are found, in order, and no other."""
    count, guilty = case
    guilty = {row for row in guilty if row < count}
    assert refused_rows(count, lambda start, stop: not guilty & set(range(start, stop))) == tuple(sorted(guilty))


def test_one_guilty_row_among_many_is_found_quickly() -> None:
    """One row among 8 192 takes 27 tries."""
    tries: list[tuple[int, int]] = []

    def accepts(start: int, stop: int) -> bool:
        tries.append((start, stop))
        return not start <= 5_000 < stop

    assert refused_rows(8_192, accepts) == (5_000,)
    assert len(tries) == 27
