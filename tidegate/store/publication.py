"""What a sink beside the store is to have next, and the rows in which that is written down (published.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, text

from tidegate.record import TopicPartition
from tidegate.store.columns import TEXT
from tidegate.store.tables import PUBLISHED


class Position(NamedTuple):
    """How far one source partition is. `amended`: up to which offset its late records have been brought in."""

    upto: int = -1
    amended: int = -1


@dataclass(frozen=True, slots=True)
class Publication:
    """What a sink is to have next. `closed`: windows that end up to there (ms) are final; None: none is. `promoted`: the number
    of the last promotion (promotions.py)."""

    sink: str
    version: int
    before: Mapping[TopicPartition, Position]
    after: Mapping[TopicPartition, Position]
    closed_before: int | None
    closed: int | None
    promoted_before: int = 0
    promoted: int = 0

    @property
    def amended(self) -> bool:
        """Whether late records were brought in meanwhile."""
        return any(self.before[tp].amended != position.amended for tp, position in self.after.items())

    def begins_at(self, upto: Mapping[TopicPartition, int]) -> bool:
        """Whether the sink was there before; where that is not said of a partition, whether nothing has come of it since."""
        return all(at.upto == upto.get(tp, self.after[tp].upto) for tp, at in self.before.items())


def planned(sink: str, rows: Mapping[TopicPartition, Any]) -> Publication:
    """The plan that was written down."""
    before = {tp: Position(row.upto, row.amended) for tp, row in rows.items()}
    after = {tp: Position(row.next_upto, row.next_amended) for tp, row in rows.items()}
    one = next(iter(rows.values()))
    promoted = one.promoted if one.next_promoted is None else one.next_promoted  # None: an older version has planned
    return Publication(sink, one.version, before, after, one.closed, one.next_closed, one.promoted, promoted)


def published_table(metadata: MetaData) -> Table:
    """All rows of a sink have the same `version`, `closed` (ms) and `promoted`. `next_…`: what a publication that is under way
    leads to."""
    return Table(
        PUBLISHED,
        metadata,
        Column("pipeline", TEXT, primary_key=True),
        Column("sink", TEXT, primary_key=True),
        Column("topic", TEXT, primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("upto", BigInteger, nullable=False),
        Column("amended", BigInteger, nullable=False),
        Column("closed", BigInteger),
        Column("version", BigInteger, nullable=False),
        Column("next_upto", BigInteger),
        Column("next_amended", BigInteger),
        Column("next_closed", BigInteger),
        Column("promoted", BigInteger, nullable=False, server_default="0"),
        Column(
            "next_promoted", BigInteger, server_default=text("NULL")
        ),  # a default: a table of before gets the column
    )
