"""Dedupe's memory in a partition's local state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidegate.rowkeys import order_preserving
from worker import keys
from worker.effects import Effects
from worker.statedb import PartitionDB
from worker.windows import BEGINNING


class SeenTable:
    """Dedupe's memory: key → event time of its first record; forgotten when it is past the horizon of any record."""

    def __init__(self, db: PartitionDB) -> None:
        self._db = db

    def get(self, wanted: Sequence[bytes]) -> list[int | None]:
        found = self._db.get([keys.SEEN + key for key in wanted])
        return [None if value is None else keys.unpack_int(value) for value in found]

    def remember(self, seen: Sequence[tuple[bytes, int]], effects: Effects) -> None:
        if not seen:
            return
        times = order_preserving(np.array([at for _, at in seen], dtype=np.int64))
        effects.put([keys.SEEN + key for key, _ in seen], [keys.pack_int(at) for _, at in seen])
        effects.put(
            [keys.SEEN_BY_TIME + times[i * 8 : i * 8 + 8] + key for i, (key, _) in enumerate(seen)], [b""] * len(seen)
        )

    def forget(self, before: int, effects: Effects) -> None:
        """Drop keys whose first record is older than `before` (ms). A key seen again since keeps its newer time."""
        bounds = order_preserving(np.array([BEGINNING, before], dtype=np.int64))
        old = [key for key, _ in self._db.scan(keys.SEEN_BY_TIME + bounds[:8], keys.SEEN_BY_TIME + bounds[8:])]
        if not old:
            return
        written = {key for key, _ in effects.puts}
        plain = [keys.SEEN + key[9:] for key in old]
        times = self._db.get(plain)
        expired = [
            key
            for key, index, at in zip(plain, old, times, strict=True)
            if at is not None and order_preserving(np.array([keys.unpack_int(at)])) == index[1:9] and key not in written
        ]
        effects.deletes += [*old, *expired]
