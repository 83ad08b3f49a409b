"""Which offsets were seen, once each, in little memory: 8 bytes an offset, however often it comes again."""

from __future__ import annotations

from array import array

import numpy as np

_LEAST_BUFFER = 65_536  # offsets; merging smaller ones would spend its time on sorting


class DistinctOffsets:
    """A sorted array and a buffer that is merged into it when it has grown to a quarter of it."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.int64)
        self._buffer = array("q")

    def add(self, offset: int) -> None:
        self._buffer.append(offset)
        if len(self._buffer) >= max(_LEAST_BUFFER, len(self._sorted) // 4):
            self._merge()

    @property
    def nbytes(self) -> int:
        """Bytes held, between additions."""
        return int(self._sorted.nbytes) + len(self._buffer) * self._buffer.itemsize

    def count(self, upto: int) -> int:
        """How many different offsets ≤ `upto` were added."""
        self._merge()
        return int(np.searchsorted(self._sorted, upto, side="right"))

    def _merge(self) -> None:
        if self._buffer:
            merged = np.concatenate([self._sorted, np.frombuffer(self._buffer, np.int64)])
            merged.sort(kind="stable")  # mostly sorted already; numpy.union1d hashes, and took 40 times as long
            self._sorted = merged[np.concatenate([[True], merged[1:] != merged[:-1]])]
            self._buffer = array("q")
