"""Which results a run has added to, so that it knows which ones are new: the database takes those in half of the time.

Kept as hashes, eight bytes each. Two keys of one hash cost the second the longer way, no more; so does all that was there when
the run claimed the partition, as far as its windows reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.sql import connect, query, quote
from tidegate.store.base import new_after

_MOST = 4_000_000  # hashes of a run, 32 MB
_WORTH = 1_000  # rows; a micro-batch with fewer is not hashed

Hashes = NDArray[np.uint64]
_NONE: Hashes = np.empty(0, np.uint64)


class Written:
    """Of each partition and aggregation. `groups`: aggregation → its group's columns. Not for use by two threads at once."""

    def __init__(self, groups: Mapping[str, Iterable[str]]) -> None:
        columns = {name: ["window_start", *group] for name, group in groups.items()}
        self._sql = {name: f"SELECT hash({', '.join(map(quote, of))}) AS h FROM deltas" for name, of in columns.items()}
        self._con = connect()
        self._since: dict[tuple[TopicPartition, str], int] = {}
        self._known: dict[tuple[TopicPartition, str], Hashes] = {}
        self._looked: dict[tuple[TopicPartition, str], Hashes | None] = {}

    def begin(self, tp: TopicPartition, state: PartitionState) -> None:
        """What is in the store of this partition is of others, or not known any more."""
        for name in self._sql:
            self._since[tp, name], self._known[tp, name] = new_after(state), _NONE
            self._looked.pop((tp, name), None)

    def perhaps_there(self, tp: TopicPartition, name: str, deltas: pa.Table) -> pa.Array:
        """For each row whether the store may have one of its key. False: there is none, in the lane `live`."""
        starts = deltas.column("window_start").to_numpy()
        there: NDArray[np.bool_] = starts <= self._since[tp, name]
        self._looked[tp, name] = None
        if deltas.num_rows >= _WORTH:
            hashes = query(self._con, self._sql[name], deltas=deltas).column("h").to_numpy()
            there |= _among(hashes, self._known[tp, name])
            self._looked[tp, name] = hashes
        return pa.array(there)

    def settle(self, states: Mapping[TopicPartition, PartitionState]) -> None:
        """What was looked at is in the store now, whose partitions are in these states."""
        for (tp, name), hashes in self._looked.items():
            if hashes is None:
                self._since[tp, name], self._known[tp, name] = new_after(states[tp]), _NONE
            else:
                self._known[tp, name] = np.sort(np.concatenate([self._known[tp, name], hashes]))
        self._looked.clear()
        if sum(map(len, self._known.values())) > _MOST:
            for tp in {tp for tp, _ in self._known}:
                self.begin(tp, states[tp])

    def close(self) -> None:
        """Give back the connection, wholly: Spark's bridge to Python can keep whoever knew of it until the process ends, and
        DuckDB complains of connections that are there then."""
        self._con.close()
        del self._con


def _among(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(hashes), np.bool_)
    places = np.searchsorted(known, hashes)
    found: NDArray[np.bool_] = known[np.minimum(places, len(known) - 1)] == hashes
    return found
