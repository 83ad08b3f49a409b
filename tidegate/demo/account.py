"""How far the pipeline is, as the database says: whoever has it, worker or Spark, writes its account there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import LiteralString

import psycopg

from tidegate.demo.metrics import PartitionProgress
from tidegate.ledger import LEDGER_OUTCOMES, Ledger

_DELAY = 15 * 60  # s; flights.yaml's eventTime.delay
_PARTITIONS: LiteralString = """
SELECT partition, upto, high_water, read, accepted, dead_lettered, late, deferred, duplicate, filtered, skipped,
       replayed
FROM tidegate_partitions WHERE pipeline = %s ORDER BY partition
"""
_HOLDER: LiteralString = """
SELECT holder FROM tidegate_holds WHERE pipeline = %s AND until > extract(epoch FROM clock_timestamp()) * 1000
"""
_INDEXED: LiteralString = "SELECT count(*) FROM tidegate_dlq.letters WHERE pipeline = %s"


@dataclass(frozen=True, slots=True)
class Account:
    """`upto`: the last offset that is applied, by partition; `high_water`: ms, the largest event time, None before the
    first record. `holder`: the catch-up that holds the pipeline now."""

    total: Ledger
    upto: Mapping[int, int]
    high_water: Mapping[int, int | None]
    holder: str | None

    @property
    def processed(self) -> dict[str, int]:
        """Records by outcome."""
        return {name: getattr(self.total, name) for name in LEDGER_OUTCOMES}

    def partitions(self, ends: Mapping[int, int]) -> dict[int, PartitionProgress]:
        """`ends`: the offset behind the last record of each partition."""
        return {
            partition: PartitionProgress(
                max(0, ends.get(partition, 0) - upto - 1), _watermark(self.high_water[partition])
            )
            for partition, upto in self.upto.items()
        }


def _watermark(high_water: int | None) -> float | None:
    return None if high_water is None else high_water / 1000 - _DELAY


class Accounts:
    """Reads it, over a connection of its own; a context manager. A worker must have made the tables."""

    def __init__(self, url: str, pipeline: str) -> None:
        self._connection, self._pipeline = psycopg.connect(url, autocommit=True), pipeline

    def __enter__(self) -> Accounts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def read(self) -> Account:
        rows = self._connection.execute(_PARTITIONS, [self._pipeline]).fetchall()
        total = sum((Ledger(*row[3:]) for row in rows), Ledger())
        holder = self._connection.execute(_HOLDER, [self._pipeline]).fetchone()
        return Account(
            total,
            {partition: upto for partition, upto, *_ in rows},
            {partition: high_water for partition, _, high_water, *_ in rows},
            None if holder is None else holder[0],
        )

    def indexed(self) -> int:
        """Dead letters in the index, whose tables an agent must have made."""
        row = self._connection.execute(_INDEXED, [self._pipeline]).fetchone()
        assert row is not None
        return int(row[0])
