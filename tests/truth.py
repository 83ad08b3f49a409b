"""What must come out of a run, computed a second time: plain SQL over the records that were produced.

The definitions are those of the README, written out again; nothing is shared with tidegate's stages. What is taken from
Kafka is only which partition and offset each record got. Lateness goes by the stream time of a record's own partition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import duckdb
import pyarrow as pa

MEASURES = ("n", "total", "mean", "low", "high", "newest", "people")
LEDGER = ("read", "accepted", "dead_lettered", "late", "duplicate", "filtered", "skipped")


@dataclass(frozen=True, slots=True)
class Produced:
    """One record as the test meant it. `kind`: event, malformed, refused (by a handler or a sink), tombstone,
    filtered. Times in ms; `replay`: it is on its second way."""

    kind: str
    partition: int
    offset: int
    key: str | None = None
    id: int | None = None
    person: str | None = None
    colour: str | None = None
    amount: int | None = None
    event_time: int | None = None
    replay: bool = False


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregation of the pipeline under test: window size and hop in ms, group columns."""

    name: str
    size: int
    hop: int
    group: tuple[str, ...]


_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("key", pa.string()),
        ("id", pa.int64()),
        ("person", pa.string()),
        ("colour", pa.string()),
        ("amount", pa.int64()),
        ("event_time", pa.int64()),
        ("replay", pa.bool_()),
    ]
)

# amount must be within 0 and 1000: the pipeline's rule. What a handler or a sink refuses is valid all the same.
_JUDGED = """
CREATE TABLE judged AS SELECT *, CASE
    WHEN kind = 'tombstone' THEN 'skipped'
    WHEN kind = 'malformed' OR NOT amount BETWEEN 0 AND 1000 THEN 'dead_lettered'
    ELSE 'valid' END AS verdict
FROM produced
"""

# Of the records with one id the first in its partition counts, whatever becomes of it later (the horizon is for ever).
_FIRST = """
CREATE TABLE firsts AS SELECT * FROM judged WHERE verdict = 'valid'
QUALIFY NOT {dedupe} OR row_number() OVER (PARTITION BY "partition", id ORDER BY "offset") = 1
"""

# bar = the largest event time of what came before in the partition − delay − allowedLateness.
_BARRED = """
CREATE TABLE barred AS SELECT *, max(event_time) FILTER (NOT replay) OVER (
    PARTITION BY "partition" ORDER BY "offset" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
) - {lag} AS bar FROM firsts
"""

# A record and a window that it belongs to.
_PANES = """
SELECT b.*, '{name}' AS aggregation, window_start, window_start + {size} AS window_end,
       NOT replay AND coalesce(window_start + {size} <= bar, false) AS missed
FROM barred b, (SELECT unnest(range({size} // {hop})) AS back) hops,
     LATERAL (SELECT event_time // {hop} * {hop} - back * {hop} AS window_start) starts
WHERE window_start + {size} > event_time
"""

_OUTCOMES = """
CREATE TABLE outcomes AS SELECT j.*, CASE
    WHEN j.verdict <> 'valid' THEN j.verdict
    WHEN f."offset" IS NULL THEN 'duplicate'
    WHEN l.entirely THEN 'late'
    WHEN j.kind = 'refused' THEN 'dead_lettered'
    WHEN j.kind = 'filtered' THEN 'filtered'
    ELSE 'accepted' END AS outcome, l.entirely IS NOT DISTINCT FROM false AS partly
FROM judged j
LEFT JOIN firsts f USING ("partition", "offset")
LEFT JOIN (
    SELECT "partition", "offset", bool_and(missed) AS entirely FROM panes GROUP BY ALL HAVING bool_or(missed)
) l USING ("partition", "offset")
"""

_RESULT = """
SELECT {keys}, count(*) AS n, sum(amount)::BIGINT AS total, avg(amount) AS mean,
       min(amount) AS low, max(amount) AS high,
       arg_max(id, (event_time, "offset", id)) AS newest, count(DISTINCT person) AS people
FROM panes JOIN (SELECT "partition", "offset" FROM outcomes WHERE outcome = 'accepted') USING ("partition", "offset")
WHERE aggregation = '{name}' AND NOT missed GROUP BY {keys}
"""

_OF_ALL = """
SELECT {keys}, count(*) AS n, sum(amount)::BIGINT AS total, avg(amount) AS mean,
       min(amount) AS low, max(amount) AS high,
       arg_max(id, (event_time, "offset", id)) AS newest, count(DISTINCT person) AS people
FROM panes JOIN (SELECT "partition", "offset" FROM outcomes WHERE outcome IN ('accepted', 'late'))
USING ("partition", "offset") WHERE aggregation = '{name}' GROUP BY {keys}
"""

_LATE_WINDOWS = """
SELECT aggregation, window_start, window_end, count(*)
FROM panes JOIN (SELECT "partition", "offset" FROM outcomes WHERE outcome IN ('accepted', 'late'))
USING ("partition", "offset") WHERE missed GROUP BY ALL
"""

Key = tuple[Any, ...]
Row = tuple[Any, ...]


class Truth:
    """The answer for these records. `delay` and `lateness` in ms; `dedupe`: by the column id, for ever."""

    def __init__(
        self,
        produced: Iterable[Produced],
        aggregates: Iterable[Aggregate],
        *,
        delay: int,
        lateness: int,
        dedupe: bool = False,
    ) -> None:
        self.aggregates = {aggregate.name: aggregate for aggregate in aggregates}
        self._database = duckdb.connect()
        columns = list(zip(*map(astuple, produced), strict=True)) or [()] * len(_SCHEMA)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, _SCHEMA.types, strict=True)]
        self._database.register("produced", pa.Table.from_arrays(arrays, schema=_SCHEMA))
        self._database.execute(_JUDGED)
        self._database.execute(_FIRST.format(dedupe=str(dedupe).lower()))
        self._database.execute(_BARRED.format(lag=delay + lateness))
        panes = " UNION ALL ".join(_PANES.format(name=a.name, size=a.size, hop=a.hop) for a in self.aggregates.values())
        self._database.execute(f"CREATE TABLE panes AS {panes}")
        self._database.execute(_OUTCOMES)

    def results(self, name: str, *, late: bool = False) -> dict[Key, Row]:
        """(window start ms, window end ms, *group) → the measures. `late`: of all records, also where they were late."""
        keys = ("window_start", "window_end", *self.aggregates[name].group)
        rows = self._rows((_OF_ALL if late else _RESULT).format(keys=", ".join(f'"{key}"' for key in keys), name=name))
        return {row[: len(keys)]: row[len(keys) :] for row in rows}

    def late_windows(self) -> dict[Key, int]:
        """(aggregation, window start, window end) → how many records it misses."""
        return {row[:3]: row[3] for row in self._rows(_LATE_WINDOWS)}

    def ledger(self) -> dict[int, dict[str, int]]:
        """Partition → the account of its records."""
        columns = ", ".join(f"count(*) FILTER (WHERE outcome = '{name}')" for name in LEDGER[1:])
        rows = self._rows(f'SELECT "partition", count(*), {columns} FROM outcomes GROUP BY "partition"')
        return {row[0]: dict(zip(LEDGER, row[1:], strict=True)) for row in rows}

    def dead_letters(self) -> set[tuple[int, int]]:
        """(partition, offset) of each record that must be dead-lettered."""
        return self._places("outcome = 'dead_lettered'")

    def late(self) -> set[tuple[int, int]]:
        """(partition, offset) of each record that is late for all its windows."""
        return self._places("outcome = 'late'")

    def partly_late(self) -> set[tuple[int, int]]:
        """(partition, offset) of each record that counted, but is late for some of its windows."""
        return self._places("outcome = 'accepted' AND partly")

    def _places(self, condition: str) -> set[tuple[int, int]]:
        return set(self._rows(f'SELECT "partition", "offset" FROM outcomes WHERE {condition}'))

    def _rows(self, sql: str) -> list[Any]:
        return self._database.execute(sql).fetchall()
