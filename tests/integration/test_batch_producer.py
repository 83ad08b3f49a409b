"""Rows for Kafka outside a transaction: confirmed, or an error that says whether it is an outage."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from batch.producer import ConfirmedProducer
from tests.harness import read_topic
from tidegate.errors import RowTooLarge
from tidegate.record import OutRow

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.slow, pytest.mark.kafka]


def test_rows_are_there_when_it_returns(kafka: KafkaTopics) -> None:
    """Where and as they were said to be: partition, key, value, headers with repeats and nulls, timestamp, order."""
    topic = kafka.topic(partitions=2)
    rows = [
        OutRow(topic, n % 2, None if n % 3 else b"k", b"%d" % n, [("h", b"1"), ("h", None)], 1000 + n)
        for n in range(50)
    ]
    producer = ConfirmedProducer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.write([])
    producer.write(rows)
    found = read_topic(kafka.bootstrap_servers, topic)
    assert [(m.partition, m.key, m.value, m.timestamp) for m in found] == [
        (row.partition, row.key, row.value, row.timestamp) for p in (0, 1) for row in rows if row.partition == p
    ]
    assert {m.headers for m in found} == {(("h", b"1"), ("h", b""))}


def test_a_row_that_the_topic_does_not_take(kafka: KafkaTopics) -> None:
    """It is no outage, which would be waited out for ever; the next rows go through."""
    topic = kafka.topic(config={"max.message.bytes": "2000"})
    producer = ConfirmedProducer({"bootstrap.servers": kafka.bootstrap_servers})
    big = Random(1).randbytes(40_000)  # compression does not help
    with pytest.raises(RowTooLarge, match=topic):
        producer.write([OutRow(topic, 0, None, big, [])])
    producer.write([OutRow(topic, 0, None, b"small", [])])
    assert [m.value for m in read_topic(kafka.bootstrap_servers, topic)] == [b"small"]
