"""Batches are delivered exactly once and in order: limits, pauses, seeks, ends of the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from tests.aio import in_a_loop
from tests.providers.flow import Flow, Owner
from tidegate.record import TopicPartition

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def fill(kafka: KafkaTopics, topic: str, count: int, *, partition: int = 0, size: int = 10) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, max_batch_size=1 << 18) as producer:
        futures = [await producer.send(topic, bytes(size), partition=partition) for _ in range(count)]
        await asyncio.gather(*futures)


@in_a_loop
async def test_every_record_once_in_order(kafka: KafkaTopics, tmp_path: Path) -> None:
    """Each partition's records arrive once and in order, in batches within both limits; records without key too."""
    topic = kafka.topic(partitions=3)
    for partition in range(3):
        await fill(kafka, topic, 1000, partition=partition)
    async with Flow(kafka.bootstrap_servers, tmp_path, topic, max_batch_records=64, max_batch_bytes=2048) as flow:
        await flow.until(lambda: flow.count() == 3000)
    assert flow.offsets() == {TopicPartition(topic, p): list(range(1000)) for p in range(3)}
    assert all(len(batch) <= 64 and batch.nbytes <= 2048 for batch in flow.batches)
    assert {record.key for batch in flow.batches for record in batch.records} == {None}


@in_a_loop
async def test_record_above_the_byte_limit_passes(kafka: KafkaTopics, tmp_path: Path) -> None:
    """A record larger than the byte limit of a batch is a batch of its own."""
    topic = kafka.topic()
    await fill(kafka, topic, 3)
    await fill(kafka, topic, 2, size=50_000)
    await fill(kafka, topic, 3)
    async with Flow(kafka.bootstrap_servers, tmp_path, topic, max_batch_bytes=2048) as flow:
        await flow.until(lambda: flow.count() == 8)
    assert flow.offsets() == {TopicPartition(topic, 0): list(range(8))}
    assert [batch.last for batch in flow.batches if batch.nbytes > 2048] == [3, 4]


@in_a_loop
async def test_pause_and_resume_are_exact(kafka: KafkaTopics, tmp_path: Path) -> None:
    """A paused partition delivers nothing, others do; resumed, it goes on with the next record; reasons add up."""
    topic = kafka.topic(partitions=2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await fill(kafka, topic, 500)
    await fill(kafka, topic, 500, partition=1)
    async with Flow(kafka.bootstrap_servers, tmp_path, topic, max_batch_records=10) as flow:
        await flow.until(lambda: len(flow.offsets().get(first, [])) >= 20)
        flow.consumer.pause_partitions_for({first}, "breaker")
        flow.consumer.pause_partitions_for({first}, "memory")
        await asyncio.sleep(0.3)
        seen = len(flow.offsets()[first])
        await fill(kafka, topic, 100)
        await flow.until(lambda: len(flow.offsets()[second]) == 500)
        assert flow.consumer.paused_for(first) == {"breaker", "memory"}
        assert not flow.consumer.at_end(first)
        flow.consumer.resume_partitions_for({first}, "memory")
        await asyncio.sleep(0.3)
        assert len(flow.offsets()[first]) == seen
        flow.consumer.resume_partitions_for({first}, "breaker")
        await flow.until(lambda: len(flow.offsets()[first]) == 600)
    assert flow.offsets()[first] == list(range(600))


@in_a_loop
async def test_seek_drops_what_was_on_its_way(kafka: KafkaTopics, tmp_path: Path) -> None:
    """After a seek the next batch starts at that offset; nothing from before is delivered, and old acks do nothing."""
    topic = kafka.topic()
    tp = TopicPartition(topic, 0)
    await fill(kafka, topic, 300)
    async with Flow(kafka.bootstrap_servers, tmp_path, topic, max_batch_records=10, max_in_flight=2) as flow:
        flow.hold = True
        await flow.until(lambda: flow.consumer.in_flight(tp) == 2 and len(flow.events) == 2)
        old = list(flow.events)
        assert await flow.consumer.seek_to(tp, 7)
        assert not any(flow.consumer.is_current(event.value) for event in old)
        flow.hold = False
        flow.batches.clear()
        for event in old:
            event.ack()
        await flow.until(lambda: flow.count() == 293)
        assert flow.offsets()[tp] == list(range(7, 300))
        assert flow.consumer.is_current(flow.batches[-1])
        assert not await flow.consumer.seek_to(TopicPartition(topic, 9), 0)


@in_a_loop
async def test_backpressure(kafka: KafkaTopics, tmp_path: Path) -> None:
    """At most `max_in_flight` batches of a partition are out; offsets move past finished batches only."""
    topic = kafka.topic()
    tp = TopicPartition(topic, 0)
    await fill(kafka, topic, 100)
    async with Flow(kafka.bootstrap_servers, tmp_path, topic, max_batch_records=10, max_in_flight=3) as flow:
        flow.hold = True
        await flow.until(lambda: len(flow.events) == 3)
        await asyncio.sleep(0.3)
        assert len(flow.events) == 3
        flow.done(flow.events[2])
        flow.done(flow.events[1])
        await asyncio.sleep(0.5)
        assert not flow.committed()
        flow.done(flow.events[0])
        await flow.until(lambda: flow.committed().get(tp) == 30)
        assert flow.consumer.lag(tp) == 70


@in_a_loop
async def test_start_is_told_by_the_owner(kafka: KafkaTopics, tmp_path: Path) -> None:
    """Partitions start where the owner of the state says, whatever the group has committed."""
    topic = kafka.topic()
    tp = TopicPartition(topic, 0)
    await fill(kafka, topic, 100)
    async with Flow(kafka.bootstrap_servers, tmp_path, topic, group=f"g-{topic}") as flow:
        await flow.until(lambda: flow.committed().get(tp) == 100)
    owner = Owner()
    owner.upto[tp] = 41
    async with Flow(kafka.bootstrap_servers, tmp_path, topic, group=f"g-{topic}", owner=owner) as flow:
        await flow.until(lambda: flow.count() == 58)
    assert flow.offsets() == {tp: list(range(42, 100))}
    assert owner.calls == [("assigned", frozenset({tp})), ("revoked", frozenset({tp}))]


@pytest.mark.parametrize("offset", [500, 0])
@in_a_loop
async def test_lost_offsets_are_the_owners_decision(kafka: KafkaTopics, tmp_path: Path, offset: int) -> None:
    """An offset that the log does not have (deleted, or beyond its end) is put to the owner, never reset in silence."""
    from confluent_kafka import TopicPartition as Bound
    from confluent_kafka.admin import AdminClient

    topic = kafka.topic()
    tp = TopicPartition(topic, 0)
    await fill(kafka, topic, 100)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_records([Bound(topic, 0, 60)]).values():
        future.result()
    owner = Owner()
    owner.upto[tp], owner.goal = offset - 1, 60
    async with Flow(kafka.bootstrap_servers, tmp_path, topic, owner=owner) as flow:
        await flow.until(lambda: flow.count() == 40)
        assert flow.consumer.paused_for(tp) == frozenset()
    assert (owner.lost, flow.offsets()) == ([(tp, offset)], {tp: list(range(60, 100))})
