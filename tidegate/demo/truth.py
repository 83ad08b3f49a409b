"""The demo's answer, computed a second time: plain SQL over the CSV, sharing no code with tidegate's stages.

The definitions are those of the README: lateness by the stream time of a record's own partition, so what is taken
from the run is only which record, and which replay of one, got which partition and offset. Which engine has read a record
does not matter. The numbers below are those of flights.yaml, and the mend is mend.py's, written out again.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from tidegate.demo.flights import find_flights
from tidegate.demo.poison import POISONS

PRODUCED_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64()),  # the flight's place in the CSV; null: a spoiled copy
        pa.field("poison", pa.string()),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # ms
    ]
)

REPLAYED_SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # ms
        pa.field("of_partition", pa.int32(), nullable=False),  # where the dead letter came from
        pa.field("of_offset", pa.int64(), nullable=False),
    ]
)

HOURLY_MEASURES = (
    "flights", "departed", "delay_total", "delay_average", "delay_worst", "kilometres", "aircraft", "first_flight",
    "last_flight",
)  # fmt: skip
DESTINATION_MEASURES = ("flights", "late_arrivals", "arrival_worst", "carriers")

# Every flight in the stream, and the mended ones: what was never given an aircraft has a placeholder.
_RECORDS = """
CREATE TABLE records AS
SELECT p."partition", p."offset", p.timestamp, p.poison, epoch_ms(f.time_hour) + f.minute * 60000 AS event_time,
       f.carrier, f.flight, f.tailnum, f.origin, f.dest, f.distance, f.dep_delay, f.arr_delay, f.air_time,
       false AS replay
FROM produced p LEFT JOIN flights f ON f.row = p.row
UNION ALL
SELECT r."partition", r."offset", r.timestamp, p.poison, epoch_ms(f.time_hour) + f.minute * 60000,
       f.carrier, f.flight, coalesce(f.tailnum, 'N1TBA'), f.origin, f.dest, f.distance, f.dep_delay, f.arr_delay, f.air_time,
       true
FROM replayed r JOIN produced p ON p."partition" = r.of_partition AND p."offset" = r.of_offset
LEFT JOIN flights f ON f.row = p.row
"""

# What the rules of severity `error` and maxFutureSkew refuse.
_JUDGED = """
CREATE TABLE judged AS
SELECT *, CASE
    WHEN poison IN (SELECT name FROM skipped_poisons) THEN 'skipped'
    WHEN poison IS NOT NULL THEN 'malformed'
    WHEN tailnum IS NULL THEN 'no aircraft'
    WHEN NOT regexp_full_match(tailnum, 'N[1-9][0-9A-Z]{1,4}') THEN 'no registration'
    WHEN distance * 60.0 / air_time < 80 OR distance * 60.0 / air_time > 600 THEN 'implausible speed'
    WHEN distance < 50 THEN 'too near'
    WHEN event_time - timestamp > 30 * 60000 THEN 'too early'
    ELSE 'valid' END AS verdict
FROM records
"""

# highWater = the largest event time among the valid records before; bar = highWater − delay − allowedLateness. A replay is
# never late, and moves nothing.
_VALID = """
CREATE TABLE valid AS
SELECT *, CASE WHEN NOT replay THEN max(event_time) OVER (
    PARTITION BY "partition", replay ORDER BY "offset" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
) - 15 * 60000 - 60 * 60000 END AS bar
FROM judged WHERE verdict = 'valid'
"""

# One row for each valid record and each window that it belongs to. `missed`: late for it; it counts once that is amended.
_PANES = """
CREATE TABLE panes AS
SELECT *, coalesce(window_end <= bar, false) AS missed FROM (
    SELECT *, 'hourly' AS aggregation,
           event_time // 3600000 * 3600000 AS window_start, window_start + 3600000 AS window_end
    FROM valid
    UNION ALL
    SELECT v.*, 'destinations', event_time // 3600000 * 3600000 - back * 3600000 AS start, start + 3 * 3600000
    FROM valid v, (VALUES (0), (1), (2)) AS hops (back)
)
"""

_LATE = """
CREATE TABLE late AS
SELECT "partition", "offset" FROM panes GROUP BY ALL HAVING bool_and(missed)
"""

_HOURLY = """
CREATE TABLE hourly AS
SELECT window_start, window_end, origin, carrier,
       count(*) AS flights,
       count(dep_delay) AS departed,
       sum(dep_delay) AS delay_total,
       avg(dep_delay) AS delay_average,
       max(dep_delay) AS delay_worst,
       sum(distance * 1.609344::DOUBLE) AS kilometres,
       count(DISTINCT tailnum) AS aircraft,
       arg_min(flight, (event_time, "offset")) AS first_flight,
       arg_max(flight, (event_time, "offset")) AS last_flight
FROM panes WHERE aggregation = 'hourly' AND (NOT missed OR getvariable('amended')) GROUP BY ALL
"""

_DESTINATIONS = """
CREATE TABLE destinations AS
SELECT window_start, window_end, dest,
       count(*) AS flights,
       count(*) FILTER (WHERE arr_delay > 15) AS late_arrivals,
       max(arr_delay) AS arrival_worst,
       count(DISTINCT carrier) AS carriers
FROM panes WHERE aggregation = 'destinations' AND (NOT missed OR getvariable('amended')) GROUP BY ALL
"""

_LATE_WINDOWS = """
CREATE TABLE late_windows AS
SELECT aggregation, window_start, window_end,
       count(*) FILTER (WHERE NOT getvariable('amended')) AS missing,
       count(*) FILTER (WHERE getvariable('amended')) AS amended
FROM panes WHERE missed GROUP BY ALL
"""

_LEDGER = """
CREATE TABLE ledger AS
SELECT j."partition", count(*) AS read,
       count(*) FILTER (WHERE verdict = 'valid' AND l."offset" IS NULL) AS accepted,
       count(*) FILTER (WHERE verdict NOT IN ('valid', 'skipped')) AS dead_lettered,
       count(l."offset") AS late,
       count(*) FILTER (WHERE verdict = 'skipped') AS skipped,
       count(*) FILTER (WHERE replay) AS replayed
FROM judged j LEFT JOIN late l USING ("partition", "offset") GROUP BY ALL
"""


Places = set[tuple[int, int]]
"""Of records: partition and offset."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What to compare of one aggregation: its key columns and its measures."""

    name: str
    keys: tuple[str, ...]
    measures: tuple[str, ...]


AGGREGATIONS = (
    Aggregation("hourly", ("window_start", "window_end", "origin", "carrier"), HOURLY_MEASURES),
    Aggregation("destinations", ("window_start", "window_end", "dest"), DESTINATION_MEASURES),
)


def compute_truth(
    produced: pa.Table, replayed: pa.Table | None = None, *, amended: bool = False
) -> duckdb.DuckDBPyConnection:
    """A database with what must come out of a run: tables hourly, destinations, late_windows, ledger, judged, late.

    `produced`: a row for each record that was written, as PRODUCED_SCHEMA. `replayed`: one for each replay, as
    REPLAYED_SCHEMA. `amended`: the late records have been brought in. Times are bigint ms since the epoch.
    """
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    database.execute("SET VARIABLE amended = ?", [amended])
    database.register("produced", produced)
    database.register("replayed", REPLAYED_SCHEMA.empty_table() if replayed is None else replayed)
    database.execute(
        "CREATE TABLE skipped_poisons AS SELECT unnest(?) AS name", [[p.name for p in POISONS if p.skipped]]
    )
    with tempfile.TemporaryDirectory(prefix="tidegate-") as name:
        _load_flights(database, Path(name) / "flights.csv")
    for statement in (_RECORDS, _JUDGED, _VALID, _PANES, _LATE, _HOURLY, _DESTINATIONS, _LATE_WINDOWS, _LEDGER):
        database.execute(statement)
    return database


def _load_flights(database: duckdb.DuckDBPyConnection, file: Path) -> None:
    """The CSV as table `flights`, with each row's place in the file (0: the first) as `row`."""
    with zipfile.ZipFile(find_flights()) as archive, archive.open("flights.csv") as packed, file.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    database.execute("CREATE TABLE lines AS SELECT * FROM read_csv(?, nullstr = ['NA', ''])", [str(file)])
    database.execute("CREATE TABLE flights AS SELECT rowid AS row, * FROM lines")


def dead_letters(database: duckdb.DuckDBPyConnection) -> Places:
    """Every record that must be in the dead-letter topic."""
    return _places(database, "verdict NOT IN ('valid', 'skipped')")


def to_mend(database: duckdb.DuckDBPyConnection) -> Places:
    """Every record that must have been replayed, once the dead letters are mended."""
    return _places(database, "verdict = 'no aircraft'")


def open_letters(database: duckdb.DuckDBPyConnection) -> Places:
    """Every record whose dead letter must still be open after that: a replay that failed again is one of them."""
    return _places(database, "verdict NOT IN ('valid', 'skipped', 'no aircraft')")


def _places(database: duckdb.DuckDBPyConnection, condition: str) -> Places:
    found = database.execute(f'SELECT "partition", "offset" FROM judged WHERE {condition}').fetchall()
    return {(partition, offset) for partition, offset in found}
