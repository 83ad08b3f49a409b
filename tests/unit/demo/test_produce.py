"""The demo's producer: its pace, and its end."""

from __future__ import annotations

import time

import pytest

from tests.harness import read_topic, wait_until
from tests.providers.kafka import KafkaTopics
from tidegate.demo.flights import Departure
from tidegate.demo.produce import DepartureProducer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def _a_second_apart(count: int) -> list[Departure]:
    return [Departure(1000 * number, number, b"UA", b"{}") for number in range(1, count + 1)]


def test_speed_is_times_real_time(kafka: KafkaTopics) -> None:
    """Twenty flights, a second apart, at fifty times real time: no sooner than after 0.38 s, in their order."""
    topic = kafka.topic(partitions=1)
    producer = DepartureProducer(kafka.bootstrap_servers, topic, _a_second_apart(20), speed=50)
    started = time.monotonic()
    producer.start()
    wait_until(lambda: producer.finished, 30, "all are confirmed")
    assert time.monotonic() - started >= 0.38
    assert producer.produced == 20
    assert [record.timestamp for record in read_topic(kafka.bootstrap_servers, topic)] == [
        1000 * n for n in range(1, 21)
    ]


def test_it_stops_between_two_flights(kafka: KafkaTopics) -> None:
    """However long the next one would be waited for."""
    producer = DepartureProducer(kafka.bootstrap_servers, kafka.topic(partitions=1), _a_second_apart(20), speed=0.001)
    producer.start()
    wait_until(lambda: producer.produced == 1, 30, "the first has gone")
    started = time.monotonic()
    producer.stop()
    assert time.monotonic() - started < 10
