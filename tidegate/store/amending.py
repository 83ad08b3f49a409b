"""Amendments in a store: late accounts from rows, and the compare-and-set that lets one backfill at a time move on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from tidegate.errors import StoreFenced
from tidegate.record import TopicPartition
from tidegate.stages.windows import NEVER
from tidegate.store.base import Amendment, LateAccount
from tidegate.store.late import LateCounts, LateWindow, find_amended, move_amended
from tidegate.store.tables import StoreTables


def fence_amended(connection: Connection, tables: StoreTables, pipeline: str, part: Amendment) -> bool:
    """Note how far is amended; False when this very amendment was written before, by a try whose answer was lost.

    Raises StoreFenced when that is not where this amendment starts.
    """
    cursor = connection.connection.cursor()
    try:
        cursor.execute(move_amended(tables, pipeline, part.tp, part.owner, part.before, part.upto))
        if cursor.rowcount == 1:
            return True
        cursor.execute(find_amended(tables, pipeline, part.tp))
        there = cursor.fetchone()
    finally:
        cursor.close()
    if there is not None and tuple(there) == (part.upto, part.owner):
        return False
    raise StoreFenced(
        f"{part.tp}: another backfill has amended late records after offset {part.before} meanwhile; run it again"
    )


def late_accounts(rows: Iterable[tuple[Any, ...]]) -> list[LateAccount]:
    """What `late.read_account` gives, per source partition."""
    found: dict[TopicPartition, tuple[int, int, dict[LateWindow, LateCounts], int]] = {}
    for topic, partition, upto, amended_upto, gone, name, start, end, *counts in rows:
        tp, timed_out = TopicPartition(topic, int(partition)), NEVER if gone is None else int(gone)
        _, _, windows, _ = found.setdefault(tp, (int(upto), int(amended_upto), {}, timed_out))
        if name is not None:
            windows[LateWindow(name, int(start), int(end))] = LateCounts(*map(int, counts))
    return [LateAccount(tp, *parts) for tp, parts in found.items()]
