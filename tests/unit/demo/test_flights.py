"""The flights as records: the right ones, in the order in which they left."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from tidegate.demo.flights import Departure, read_departures
from tidegate.demo.poison import POISONS, with_poison

pytestmark = pytest.mark.xdist_group("flights")  # reading a year of them takes seconds: one process does


@pytest.fixture(scope="module")
def departures() -> list[Departure]:
    return read_departures()


@pytest.mark.slow
def test_every_flight_of_the_year_is_there_once(departures: list[Departure]) -> None:
    """336 776 records, each of another row of the CSV."""
    assert len(departures) == 336_776
    assert {departure.row for departure in departures} == set(range(336_776))


@pytest.mark.slow
def test_records_come_in_the_order_in_which_the_flights_left(departures: list[Departure]) -> None:
    """The Kafka timestamp never goes back."""
    assert all(before.timestamp <= after.timestamp for before, after in pairwise(departures))


@pytest.mark.slow
def test_event_time_is_the_schedule_and_the_timestamp_the_departure(departures: list[Departure]) -> None:
    """The first flight of the year: scheduled 5:15 in New York, which is 10:15 UTC, left two minutes late."""
    first = departures[0]
    assert first.timestamp == 1_357_035_420_000  # 2013-01-01T10:17:00Z
    assert first.key == b"UA"
    assert json.loads(first.value or b"") == {
        "scheduled": "2013-01-01T10:15:00Z",
        "flight": 1545,
        "tailnum": "N14228",
        "origin": "EWR",
        "dest": "IAH",
        "distance": 1400,
        "dep_delay": 2,
        "arr_delay": 11,
        "air_time": 227,
    }


@pytest.mark.slow
def test_cancelled_flights_have_nulls_and_come_at_their_scheduled_time(departures: list[Departure]) -> None:
    """8 255 flights never left; 2 512 of them had no aircraft."""
    values = [json.loads(departure.value or b"") for departure in departures]
    assert sum(value["dep_delay"] is None for value in values) == 8_255
    assert sum(value["tailnum"] is None for value in values) == 2_512


@pytest.mark.slow
def test_a_limit_takes_the_first_to_leave(departures: list[Departure]) -> None:
    """A shorter run is the beginning of the whole one."""
    assert read_departures(1000) == departures[:1000]


@pytest.mark.slow
def test_poison_is_strewn_in_and_takes_nothing_away(departures: list[Departure]) -> None:
    """Every kind is there, the same in every run, and the flights stay as they were."""
    mixed = list(with_poison(departures[:5000], 40))
    spoiled = [departure for departure in mixed if departure.row is None]
    assert [departure for departure in mixed if departure.row is not None] == departures[:5000]
    assert len(spoiled) == 40
    assert {departure.poison for departure in spoiled} == {poison.name for poison in POISONS}
    assert mixed == list(with_poison(departures[:5000], 40))


@pytest.mark.parametrize("count", [0, 3])
def test_poison_needs_flights_to_spoil(count: int) -> None:
    """An empty stream stays empty."""
    assert list(with_poison([], count)) == []
