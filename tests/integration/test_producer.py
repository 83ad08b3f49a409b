"""Transactions of a partition's producer, read back by `restore` and by a plain consumer, on a real broker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiokafka
import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, TopicPartition

import worker.producer
from tests.aio import in_a_loop
from tidegate.calls import Calls
from tidegate.clock import Deadline
from tidegate.errors import BrokerUnavailable, ProducerFenced, RowTooLarge
from tidegate.recordformat import PackedHeaders
from worker.producer import PartitionProducer
from worker.records import Rows
from worker.restore import Restored, restore
from worker.settle import settle
from worker.statedb import PartitionDB

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

Read = list[tuple[bytes, bytes | None]]


async def read(kafka: KafkaTopics, topic: str, partition: int = 0, start: int = 0) -> tuple[Read, Restored]:
    rows: Read = []

    def apply(keys: list[bytes], values: list[bytes | None], last: int) -> None:
        rows.extend(zip(keys, values, strict=True))

    restored = await restore(
        {"bootstrap.servers": kafka.bootstrap_servers}, topic, partition, start, apply, asyncio.to_thread
    )
    return rows, restored


async def ended(kafka: KafkaTopics, topic: str, partition: int = 0) -> None:
    """Wait until no transaction is open. A broker may answer a commit before its marker is in the log; an owner, whose
    producer starts before it restores, need not wait for that."""
    deadline = Deadline(20)
    while _end(kafka, topic, partition, "read_committed") < _end(kafka, topic, partition, "read_uncommitted"):
        assert not deadline.expired, f"a transaction is open in {topic}"
        await asyncio.sleep(0.05)


async def read_ended(kafka: KafkaTopics, topic: str, partition: int = 0) -> Read:
    """The rows, once no transaction is open."""
    await ended(kafka, topic, partition)
    return (await read(kafka, topic, partition))[0]


def _end(kafka: KafkaTopics, topic: str, partition: int, isolation: str) -> int:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "g", "isolation.level": isolation})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1])
    finally:
        consumer.close()


def producer_of(kafka: KafkaTopics, name: str, **options: float) -> PartitionProducer:
    return PartitionProducer({"bootstrap_servers": kafka.bootstrap_servers}, name, **options)  # type: ignore[arg-type]  # the two timeouts, passed on


async def leave_open(kafka: KafkaTopics, name: str, topic: str) -> AIOKafkaProducer:
    """A producer in the middle of a transaction, its row already in the log."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=name)
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(topic, b"open", key=b"open", partition=0)
    return producer


@in_a_loop
async def test_rows_come_back_as_written(kafka: KafkaTopics) -> None:
    """A transaction over several topics and partitions is read back in order, nulls included, and offsets are told."""
    topic, other = kafka.topic(partitions=2), kafka.topic()
    producer = producer_of(kafka, f"p-{topic}")
    await producer.start()
    offsets = await producer.commit(
        [
            Rows(topic, 1, [b"a", b"b"], [b"1", None]),
            Rows(other, 0, [None], [b"x"], headers=[[("h", b"1")]], timestamps=[1234]),
            Rows(topic, 1, [b"c"], [b"3"]),
            Rows(topic, 0, [], []),
        ]
    )
    assert offsets == {(topic, 1): 2, (other, 0): 0}
    assert await producer.commit([]) == {}
    await producer.stop()
    assert await read_ended(kafka, topic, 1) == [(b"a", b"1"), (b"b", None), (b"c", b"3")]
    assert await read_ended(kafka, topic, 0) == []
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "g"})
    consumer.assign([TopicPartition(other, 0, 0)])
    message = consumer.poll(10)
    assert message is not None
    assert (message.headers(), message.timestamp()[1]) == ([("h", b"1")], 1234)
    consumer.close()


@in_a_loop
async def test_large_lists_are_split(kafka: KafkaTopics) -> None:
    """More rows than fit into one record batch go out in several, in order, whatever form their headers have."""
    topic = kafka.topic(partitions=2)
    producer = producer_of(kafka, f"p-{topic}")
    await producer.start()
    count = 20_000
    keys: list[bytes | None] = [b"%d" % i for i in range(count)]
    noise = random.Random(1)
    values: list[bytes | None] = [noise.randbytes(100) for _ in range(count)]  # else lz4 makes a small batch of all
    packed = [PackedHeaders.of([("h", b"1")])] * count
    for times in (1, 2):  # the second goes on with the first's row numbers
        offsets = await producer.commit([Rows(topic, 0, keys, values), Rows(topic, 1, keys, values, packed)])
        assert offsets == {(topic, p): times * count + (times - 1) - 1 for p in (0, 1)}  # a marker between them
    await producer.stop()
    for partition in (0, 1):
        await ended(kafka, topic, partition)
        rows, restored = await read(kafka, topic, partition)
        assert [key for key, _ in rows] == keys * 2
        assert restored.records == 2 * count


@in_a_loop
async def test_newer_producer_fences(kafka: KafkaTopics) -> None:
    """A producer whose id was initialised by another is fenced, and what it had not committed never appears."""
    topic = kafka.topic()
    first, second = producer_of(kafka, f"p-{topic}"), producer_of(kafka, f"p-{topic}")
    await first.start()
    await first.commit([Rows(topic, 0, [b"a"], [b"1"])])
    await second.start()
    with pytest.raises(ProducerFenced):
        await first.commit([Rows(topic, 0, [b"b"], [b"2"])])
    with pytest.raises(BrokerUnavailable, match="not open"):
        await first.commit([Rows(topic, 0, [b"b"], [b"2"])])
    await second.commit([Rows(topic, 0, [b"c"], [b"3"])])
    await second.stop()
    await first.stop()
    assert await read_ended(kafka, topic) == [(b"a", b"1"), (b"c", b"3")]


@in_a_loop
async def test_starting_settles_the_predecessor(kafka: KafkaTopics) -> None:
    """Starting a producer aborts what its predecessor left open: a restore right after sees none of it, and ends."""
    topic = kafka.topic()
    crashed = await leave_open(kafka, f"p-{topic}", topic)
    producer = producer_of(kafka, f"p-{topic}")
    await producer.start()
    rows, restored = await asyncio.wait_for(read(kafka, topic), 10)
    assert (rows, restored.records) == ([], 0)
    await producer.commit([Rows(topic, 0, [b"a"], [b"1"])])
    await producer.stop()
    assert await read_ended(kafka, topic) == [(b"a", b"1")]
    await worker.producer._close(crashed)


@in_a_loop
async def test_row_too_large_is_named(kafka: KafkaTopics) -> None:
    """A row above the topic's limit is refused with topic and size; its transaction leaves nothing; the next works, and what
    has its headers packed is refused just so."""
    topic, small = kafka.topic(), kafka.topic(config={"max.message.bytes": "2000"})
    producer = producer_of(kafka, f"p-{topic}")
    await producer.start()
    await producer.commit([Rows(small, 0, [b"s"], [b"fits"])])
    noise = random.Random(1).randbytes(10_000)  # nothing that lz4 could shrink
    with pytest.raises(RowTooLarge, match=small) as raised:
        await producer.commit([Rows(topic, 0, [b"a"], [b"1"]), Rows(small, 0, [b"b", b"c"], [noise, b"2"])])
    assert raised.value.size == len(noise) + 1
    headers = [PackedHeaders.of([("h", noise)]), PackedHeaders.of([])]
    with pytest.raises(RowTooLarge, match=small) as raised:
        await producer.commit([Rows(topic, 0, [b"a"], [b"1"]), Rows(small, 0, [b"b", b"c"], [b"1", b"2"], headers)])
    assert raised.value.size > len(noise)
    packed = [PackedHeaders.of([("h", b"5")])]
    await producer.commit([Rows(topic, 0, [b"d"], [b"4"]), Rows(small, 0, [b"e"], [b"5"], packed)])
    await producer.stop()
    assert await read_ended(kafka, topic) == [(b"d", b"4")]
    assert await read_ended(kafka, small) == [(b"s", b"fits"), (b"e", b"5")]


@in_a_loop
async def test_row_numbers_do_not_run_out(kafka: KafkaTopics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before aiokafka's row numbers overflow, the producer starts afresh, and nothing is lost or repeated."""
    topic = kafka.topic()
    monkeypatch.setattr(worker.producer, "_MAX_SEQUENCE", 25)
    producer = producer_of(kafka, f"p-{topic}")
    await producer.start()
    for number in range(6):
        await producer.commit([Rows(topic, 0, [b"%d" % number] * 10, [b"v"] * 10)])
    await producer.stop()
    rows = await read_ended(kafka, topic)
    assert [key for key, _ in rows] == [b"%d" % number for number in range(6) for _ in range(10)]


@in_a_loop
async def test_no_broker_is_said_in_time() -> None:
    """Without a broker, starting raises BrokerUnavailable within the producer's own timeout."""
    producer = PartitionProducer({"bootstrap_servers": "127.0.0.1:1"}, "p-none", timeout=1.0)
    with pytest.raises(BrokerUnavailable, match="p-none"):
        await asyncio.wait_for(producer.start(), 10)


@pytest.fixture(scope="module")
def trusting_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaTopics]:
    """A broker that takes rows of a transaction without asking the coordinator whether it knows of the partition."""
    from tests.providers.kafka import KafkaTopics, embedded_kafka

    settings = {"transaction.partition.verification.enable": "false"}
    with embedded_kafka(tmp_path_factory.mktemp("kafka"), settings) as server:
        yield KafkaTopics(server.bootstrap_servers)


def settling(kafka: KafkaTopics, pool: ThreadPoolExecutor, topics: dict[str, int]) -> Any:
    """What `settle` uses of a context."""
    confluent = {"bootstrap.servers": kafka.bootstrap_servers}
    return SimpleNamespace(confluent=confluent, partition_counts=topics, readers=pool)


async def leave_unmarked(producer: PartitionProducer, rows: Rows) -> None:
    """Commit a transaction of which the coordinator does not know that it wrote these rows: as with KAFKA-20734, where it
    takes a partition for deleted, they are written and never get their end mark."""
    inner = producer._producer
    assert inner is not None
    await inner.begin_transaction()
    inner._txn_manager._txn_partitions.add(aiokafka.TopicPartition(rows.topic, rows.partition))
    await worker.producer._write_all(inner, {(rows.topic, rows.partition): [rows]})
    inner._txn_manager._txn_partitions.clear()  # an empty one ends without a question
    await inner.commit_transaction()


@in_a_loop
@pytest.mark.parametrize("known", [True, False], ids=["the state has it", "the state lacks it"])
async def test_rows_without_an_end_mark_are_decided(trusting_kafka: KafkaTopics, tmp_path: Path, known: bool) -> None:
    """A transaction that a partition of the changelog was never told the end of is committed when the local state has it,
    and aborted when it has not; what comes after it is readable again, and so are its dead letters."""
    kafka = trusting_kafka
    changelog, letters = kafka.topic(), kafka.topic()
    first = producer_of(kafka, "p")
    await first.start()
    settled = (await first.commit([Rows(changelog, 0, [b"a"], [b"1"])]))[changelog, 0]
    await ended(kafka, changelog)
    await leave_unmarked(first, Rows(changelog, 0, [b"b"], [b"2"]))
    await leave_unmarked(first, Rows(letters, 0, [b"c"], [b"3"]))
    await first.stop()
    second = producer_of(kafka, "p")
    await second.start()
    assert _end(kafka, changelog, 0, "read_committed") == settled + 2 < _end(kafka, changelog, 0, "read_uncommitted")
    db = PartitionDB(tmp_path / "p")
    db.apply([b"a"], [b"1"], settled + 2 if known else settled)
    with ThreadPoolExecutor() as pool:
        context = settling(kafka, pool, {changelog: 1, letters: 1})
        await settle(context, second, (changelog, 0), db, Calls(pool), after_outage=False)
    db.close()
    await second.commit([Rows(changelog, 0, [b"d"], [b"4"])])
    await second.stop()
    between = [(b"b", b"2")] if known else []
    assert await read_ended(kafka, changelog) == [(b"a", b"1"), *between, (b"d", b"4")]
    assert await read_ended(kafka, letters) == [(b"c", b"3")]


@in_a_loop
@pytest.mark.parametrize("after_outage", [True, False], ids=["after an outage", "else"])
async def test_dead_letters_without_an_end_mark(
    trusting_kafka: KafkaTopics, tmp_path: Path, after_outage: bool
) -> None:
    """After an outage the topics that a partition writes to get the mark they may lack, although its changelog lacks none:
    their readers would wait for the next dead letter. Without one nothing is written to them."""
    kafka = trusting_kafka
    changelog, letters = kafka.topic(), kafka.topic()
    first = producer_of(kafka, "q")
    await first.start()
    await leave_unmarked(first, Rows(letters, 0, [b"c"], [b"3"]))
    await first.stop()
    second = producer_of(kafka, "q")
    await second.start()
    db = PartitionDB(tmp_path / "p")
    with ThreadPoolExecutor() as pool:
        context = settling(kafka, pool, {changelog: 1, letters: 1})
        await settle(context, second, (changelog, 0), db, Calls(pool), after_outage=after_outage)
    db.close()
    await second.stop()
    if after_outage:
        assert await read_ended(kafka, letters) == [(b"c", b"3")]
    else:
        assert (await read(kafka, letters))[0] == []
