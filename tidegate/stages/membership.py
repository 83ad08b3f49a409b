"""In which windows records count: in those that were open for them, or, when they are amended, in those that were not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tidegate.stages.batch import MissedWindow
from tidegate.stages.windows import Longs, Panes, Windows


class Membership(Protocol):
    """Of some rows, in their order."""

    def panes(self, aggregation: str, windows: Windows, times: Longs) -> Panes:
        """The rows' windows in one aggregation. `times`: the rows' event times, ms."""

    def take(self, kept: Longs) -> Membership:
        """That of some of the rows, by index."""


@dataclass(frozen=True, slots=True)
class OpenWindows:
    """`bar`: per row, in ms: windows that end at or before it are closed for the row."""

    bar: Longs

    def panes(self, aggregation: str, windows: Windows, times: Longs) -> Panes:
        return windows.spread(times, self.bar)

    def take(self, kept: Longs) -> OpenWindows:
        return OpenWindows(self.bar[kept])


@dataclass(frozen=True, slots=True)
class MissedWindows:
    """`missed`: per row the windows that had closed for it."""

    missed: Sequence[tuple[MissedWindow, ...]]

    def panes(self, aggregation: str, windows: Windows, times: Longs) -> Panes:
        pairs = [
            (row, window.start)
            for row, missed in enumerate(self.missed)
            for window in missed
            if window.aggregation == aggregation
        ]
        rows, starts = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return Panes(rows, starts)

    def take(self, kept: Longs) -> MissedWindows:
        return MissedWindows([self.missed[row] for row in kept.tolist()])
