"""Windows: which ones a record falls into. All are aligned to the epoch; start inclusive, end exclusive, in ms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]

# Below every event time, and far enough from the smallest int64 that a delay can be taken from it.
NEVER = -(2**62)


@dataclass(frozen=True, slots=True)
class Panes:
    """Records in windows: a row for each record and each window that takes it.

    `rows`: index of the record; None: every record once, in order. `starts`: the window's start, ms.
    """

    rows: Longs | None
    starts: Longs


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of `size` ms that start every `hop` ms; tumbling when they are equal. `hop` ≤ `size`."""

    size: int
    hop: int

    def newest(self, event_times: Longs) -> Longs:
        """The start of the last window that each event time falls into. Floored, so right before 1970 too."""
        return event_times // self.hop * self.hop

    def spread(self, event_times: Longs, bar: Longs) -> Panes:
        """All windows of each record but those that had closed for it: whose end is at or before its `bar`."""
        newest = self.newest(event_times)
        if self.size == self.hop:
            is_open = newest + self.size > bar
            if is_open.all():
                return Panes(None, newest)
            rows = np.flatnonzero(is_open)
            return Panes(rows, newest[rows])
        starts = newest[:, None] - np.arange(0, self.size, self.hop, dtype=np.int64)
        ends = starts + self.size
        counts = (ends > event_times[:, None]) & (ends > bar[:, None])
        return Panes(np.nonzero(counts)[0], starts[counts])

    def misses_some(self, event_times: Longs, bar: Longs) -> NDArray[np.bool_]:
        """Whether the oldest window of each record had closed."""
        newest = self.newest(event_times)
        oldest = newest - (self.size - 1 - (event_times - newest)) // self.hop * self.hop
        return oldest + self.size <= bar

    def misses_all(self, event_times: Longs, bar: Longs) -> NDArray[np.bool_]:
        """Whether even the newest window of each record had closed."""
        return self.newest(event_times) + self.size <= bar

    def missed(self, event_time: int, bar: int) -> list[int]:
        """The starts of one record's windows that had closed, oldest first."""
        newest = event_time // self.hop * self.hop
        starts = range(newest, event_time - self.size, -self.hop)
        return [start for start in reversed(starts) if start + self.size <= bar]
