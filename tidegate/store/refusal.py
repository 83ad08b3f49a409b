"""Finding the rows that a database refuses: by bisection, because its error names a value but no row."""

from __future__ import annotations

from collections.abc import Callable


def refused_rows(count: int, accepts: Callable[[int, int], bool]) -> tuple[int, ...]:
    """The indexes of the refused rows among `count`. `accepts(start, stop)` tries a run of rows and leaves no trace.

    Tries about 2·g·log2(count) runs for g refused rows; each row that is named was tried alone.
    """
    guilty: list[int] = []
    runs = [(0, count)] if count else []
    while runs:
        start, stop = runs.pop()
        if accepts(start, stop):
            continue
        if stop - start == 1:
            guilty.append(start)
            continue
        middle = (start + stop) // 2
        runs += [(middle, stop), (start, middle)]
    return tuple(sorted(guilty))
