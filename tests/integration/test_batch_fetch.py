"""How an executor reads its stretch of a partition: exactly that, in batches of bounded size, or an error that says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import confluent_kafka
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from batch import fetch
from batch.fetch import BEGINNING, Stretch, StretchReader
from tests.harness import produce
from tidegate.config.kafka import Kafka
from tidegate.errors import BrokerUnavailable, OffsetOutOfRange
from tidegate.record import TopicPartition

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.slow, pytest.mark.kafka]


def test_a_stretch_and_nothing_else(kafka: KafkaTopics) -> None:
    """From its start to before its end, one stretch after the other with one reader; records as they were written; no batch
    larger than allowed, once the size of the records is known."""
    topics = [kafka.topic(partitions=2), kafka.topic()]
    for topic, partition in ((topics[0], 1), (topics[1], 0)):
        produce(
            kafka.bootstrap_servers,
            topic,
            (
                {
                    "partition": partition,
                    "key": b"k" if n % 2 else None,
                    "value": b"%d" % n + b"x" * 1000 if n % 3 else None,
                    "timestamp": 1000 + n,
                    "headers": [("h", b"1"), ("h", b"2")] if n % 5 == 0 else [],
                }
                for n in range(300)
            ),
        )
    reader = StretchReader(Kafka(bootstrap_servers=kafka.bootstrap_servers), "g", most=64, most_bytes=20_000)
    for tp in (TopicPartition(topics[0], 1), TopicPartition(topics[1], 0)):
        for start, end, expected in ((BEGINNING, 10, range(10)), (7, 200, range(7, 200)), (250, 300, range(250, 300))):
            batches = list(reader.read(Stretch(tp, start, end)))
            assert {batch.tp for batch in batches} == {tp}
            assert max(map(len, batches)) <= 64
            assert all(batch.records.nbytes < 40_000 for batch in batches[1:])
            rows = [row for batch in batches for row in batch.records.to_pylist()]
            assert [row["offset"] for row in rows] == list(expected)
            for n, row in zip(expected, rows, strict=True):
                assert row["timestamp"] == 1000 + n
                assert row["key"] == (b"k" if n % 2 else None)
                assert row["value"] == (b"%d" % n + b"x" * 1000 if n % 3 else None)
                headers = [{"key": "h", "value": b"1"}, {"key": "h", "value": b"2"}]
                assert row["headers"] == (headers if n % 5 == 0 else None)


def test_an_end_that_the_broker_does_not_have(kafka: KafkaTopics, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an outage, and not the end: whoever took what is there for all would never ask for the rest again. Markers of
    transactions, behind which nothing comes, count as there."""
    topic = kafka.topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions(30)
    for keep in (True, False):
        producer.begin_transaction()
        for _ in range(5):
            producer.produce(topic, b"x")
        producer.flush(30)
        producer.commit_transaction(30) if keep else producer.abort_transaction(30)
    reader = StretchReader(Kafka(bootstrap_servers=kafka.bootstrap_servers), "g", 100, 10**6)
    tp = TopicPartition(topic, 0)
    read = [row["offset"] for batch in reader.read(Stretch(tp, 0, 12)) for row in batch.records.to_pylist()]
    assert read == [0, 1, 2, 3, 4]
    monkeypatch.setattr(fetch, "_SILENCE", 0.5)
    with pytest.raises(BrokerUnavailable, match="short of"):
        list(reader.read(Stretch(tp, 0, 13)))


def test_a_start_that_the_log_has_lost(kafka: KafkaTopics) -> None:
    """It is said, and not skipped; from the beginning it is read as far as there is something."""
    topic = kafka.topic()
    produce(kafka.bootstrap_servers, topic, ({"value": b"x"} for _ in range(20)))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for done in admin.delete_records([confluent_kafka.TopicPartition(topic, 0, 12)]).values():
        done.result(30)
    reader, tp = (
        StretchReader(Kafka(bootstrap_servers=kafka.bootstrap_servers), "g", 100, 10**6),
        TopicPartition(topic, 0),
    )
    with pytest.raises(OffsetOutOfRange, match="goes on at offset 5, but the log has 12 to 19"):
        list(reader.read(Stretch(tp, 5, 20)))
    assert [batch.first for batch in reader.read(Stretch(tp, BEGINNING, 20))] == [12]
