"""The tables of late data: what windows miss, and how far that has been amended."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table

from tidegate.store.columns import INSTANT, TEXT

LATE_WINDOWS: Final = "tidegate_late_windows"
AMENDED: Final = "tidegate_amended"


def late_windows_table(metadata: MetaData) -> Table:
    """The counts are those of late.LateCounts; workers add to `missing`, backfills and timeouts move from it to
    the others."""
    return Table(
        LATE_WINDOWS,
        metadata,
        Column("pipeline", TEXT, primary_key=True),
        Column("aggregation", TEXT, primary_key=True),
        Column("window_start", INSTANT, primary_key=True, autoincrement=False),
        Column("window_end", INSTANT, primary_key=True, autoincrement=False),
        Column("topic", TEXT, primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("missing", BigInteger, nullable=False),
        Column("refused", BigInteger, nullable=False, server_default="0"),
        Column("amended", BigInteger, nullable=False, server_default="0"),
        Column("expired", BigInteger, nullable=False, server_default="0"),
    )


def amended_table(metadata: MetaData) -> Table:
    """Apart from the partition rows, which are their writer's: a backfill waits for no worker, and none for it."""
    return Table(
        AMENDED,
        metadata,
        Column("pipeline", TEXT, primary_key=True),
        Column("topic", TEXT, primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("upto", BigInteger, nullable=False),
        Column("owner", TEXT, nullable=False),
    )
