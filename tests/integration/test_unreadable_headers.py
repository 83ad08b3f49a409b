"""A record with a header whose name is no UTF-8, in the log of a real broker: whoever reads it gets the record, and every reader
the same headers of it (tidegate/headers.py)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.consumer import fetcher

from batch.backfill.ranges import KafkaRange
from batch.backfill.splits import Split
from batch.fetch import Stretch, StretchReader
from dlq.document import full_document
from dlq.index.letters import index_row
from dlq.index.masking import Masker
from dlq.reader import dead_letter, original_of, read_one, read_records
from dlq.replay.follow import DeadLetterTail
from tests.aio import in_a_loop
from tests.unreadable import NotUtf8, Pairs, produce_rows
from tidegate.config.kafka import Kafka
from tidegate.headers import UNREADABLE, headers_of
from tidegate.record import OutRow, TopicPartition
from tidegate.stages.batch import RawBatch
from tidegate.store.reading import TopicReader
from transport.records import use_unpacked_records

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

COUNT, BAD = 30, 20  # a call that has run some times is compiled anew, and such a one hides the client's error
GOOD: Pairs = [("a", b"1"), ("é", None)]
READ: Pairs = [(UNREADABLE, None)]


class Log(NamedTuple):
    """COUNT records of one partition; that at BAD has such a header between others."""

    kafka: Kafka
    tp: TopicPartition

    @property
    def wanted(self) -> RawBatch:
        numbers, headers = range(COUNT), [READ if n == BAD else GOOD for n in range(COUNT)]
        values = [b"%d" % n for n in numbers]
        return RawBatch.of(self.tp, numbers, [1000 + n for n in numbers], [b"k"] * COUNT, values, headers)


@pytest.fixture
def log(kafka: KafkaTopics) -> Log:
    topic, bad = kafka.topic(), [GOOD[0], (NotUtf8("é"), b"2"), GOOD[1]]
    rows = [OutRow(topic, 0, b"k", b"%d" % n, bad if n == BAD else GOOD, 1000 + n) for n in range(COUNT)]
    produce_rows(kafka.bootstrap_servers, rows)
    return Log(Kafka(bootstrap_servers=kafka.bootstrap_servers), TopicPartition(topic, 0))


def together(batches: list[RawBatch]) -> pa.Table:
    return pa.Table.from_batches([batch.records for batch in batches])


@in_a_loop
async def _taken(log: Log, taken: list[Any]) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=log.kafka.bootstrap_servers, isolation_level="read_committed")
    await consumer.start()
    try:
        consumer.assign([KafkaPartition(*log.tp)])
        consumer.seek(KafkaPartition(*log.tp), 0)
        while len(taken) < COUNT:
            for records in (await consumer.getmany(timeout_ms=10_000, max_records=7)).values():
                taken += records
    finally:
        await consumer.stop()


def test_the_engines_have_the_same_batch(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's transport, an executor and a backfill: the same records, byte for byte."""
    for name in ("PartitionRecords", "MemoryRecords"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))  # put back afterwards
    use_unpacked_records()
    taken: list[Any] = []
    _taken(log, taken)
    read = StretchReader(log.kafka, "g", most=64, most_bytes=10**6).read(Stretch(log.tp, 0, COUNT))
    filled = KafkaRange(log.kafka, "g", (log.tp.topic,)).read(Split(log.tp, 0, COUNT), 7)
    wanted = together([log.wanted])
    for batches in ([RawBatch.of_records(log.tp, taken)], list(read), list(filled)):
        assert together(batches).equals(wanted)


def test_it_is_the_same_whenever_it_is_asked_for(log: Log) -> None:
    """confluent-kafka itself raises once, at best, and then gives a list with a null pointer in it."""
    with TopicReader(log.kafka, "g") as reader:
        reader.start({log.tp: 0})
        for message in reader.to_the_end():
            for _ in range(3):
                assert headers_of(message) == (READ if message.offset() == BAD else GOOD)


def test_it_may_be_in_a_dead_letter_topic(log: Log) -> None:
    """Of a foreign tool, say: it is listed, shown, indexed, and given back for a replay, as a letter without what its headers
    told; who follows what comes back of a replay reads over it."""
    topic = log.tp.topic
    placed = list(read_records(log.kafka, topic, field="deadLetters.topic"))
    assert [one.headers for one in placed] == [READ if n == BAD else GOOD for n in range(COUNT)]
    letter = read_one(log.kafka, topic, 0, BAD)
    assert letter is not None
    assert full_document(letter)["headers"] == [{"name": UNREADABLE, "value": None, "valueEncoding": None}]
    assert index_row(placed[BAD], log.tp, Masker(()))["dlq_offset"] == BAD
    with TopicReader(log.kafka, "g") as reader:
        reader.start({log.tp: BAD})
        message = next(reader.to_the_end())
        assert dead_letter(message).envelope.value == original_of(message).value == b"%d" % BAD
        assert list(original_of(message).headers) == READ
    tail, until = DeadLetterTail(log.kafka, [topic], "job"), time.monotonic() + 30
    try:
        tail.start({log.tp: 0})
        while not tail.read({log.tp: COUNT}):
            assert time.monotonic() < until
    finally:
        tail.close()
