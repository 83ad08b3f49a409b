"""Logs as they are: transactions, markers at the end, compaction, every compression."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from tests.aio import in_a_loop
from tests.providers.flow import Flow
from tidegate.record import TopicPartition

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def transaction(producer: AIOKafkaProducer, topic: str, values: list[bytes], *, commit: bool) -> None:
    await producer.begin_transaction()
    for value in values:
        await producer.send_and_wait(topic, value, partition=0)
    await (producer.commit_transaction() if commit else producer.abort_transaction())


def _has_reached(flow: Flow, offset: int) -> bool:
    return bool(flow.batches) and flow.batches[-1].last >= offset


@in_a_loop
async def test_aborted_transactions_are_not_delivered(kafka: KafkaTopics, tmp_path: Path) -> None:
    """Only committed records arrive; markers and aborted records at the end of the log count as its end."""
    topic = kafka.topic()
    tp = TopicPartition(topic, 0)
    options = {"bootstrap_servers": kafka.bootstrap_servers, "transactional_id": topic}
    async with AIOKafkaProducer(**options) as producer, Flow(kafka.bootstrap_servers, tmp_path, topic) as flow:
        await transaction(producer, topic, [b"a", b"b"], commit=True)
        await transaction(producer, topic, [b"x"] * 5, commit=False)
        await transaction(producer, topic, [b"c"], commit=True)
        await transaction(producer, topic, [b"y"] * 5, commit=False)
        await flow.until(lambda: flow.consumer.at_end(tp))
        assert [record.value for batch in flow.batches for record in batch.records] == [b"a", b"b", b"c"]
        assert flow.consumer.end_offset(tp) == 17
        assert flow.consumer.lag(tp) == 0
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"open", partition=0)
        await asyncio.sleep(0.5)
        assert flow.count() == 3
        await producer.commit_transaction()
        await flow.until(lambda: flow.count() == 4)


@in_a_loop
async def test_idleness_needs_an_empty_fetch(kafka: KafkaTopics, tmp_path: Path) -> None:
    """A partition is at its end once a fetch there came back empty, until a record comes; never while it is held."""
    topic = kafka.topic()
    tp = TopicPartition(topic, 0)
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer,
        Flow(kafka.bootstrap_servers, tmp_path, topic) as flow,
    ):
        await flow.until(lambda: (flow.consumer.idle_seconds(tp) or 0) > 0.5)
        await producer.send_and_wait(topic, b"1", partition=0)
        await flow.until(lambda: flow.count() == 1)
        idle = flow.consumer.idle_seconds(tp)
        assert idle is None or idle < 0.3
        await flow.until(lambda: flow.consumer.at_end(tp))
        flow.consumer.pause_partitions_for({tp}, "breaker")
        assert flow.consumer.idle_seconds(tp) is None


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
@in_a_loop
async def test_compressed_topics(kafka: KafkaTopics, tmp_path: Path, compression: str) -> None:
    """Records of every compression arrive; nulls stay nulls."""
    topic = kafka.topic()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, compression_type=compression) as producer:
        for number in range(100):
            await producer.send(topic, bytes(100), key=b"%d" % number, partition=0)
        await producer.send_and_wait(topic, None, key=b"gone", partition=0)
    async with Flow(kafka.bootstrap_servers, tmp_path, topic) as flow:
        await flow.until(lambda: flow.count() == 101)
    assert flow.offsets() == {TopicPartition(topic, 0): list(range(101))}
    assert flow.batches[-1].records[-1].value is None


@in_a_loop
async def test_compacted_topic_with_gaps(kafka: KafkaTopics, tmp_path: Path) -> None:
    """Gaps that compaction leaves are passed over, and the offsets committed are behind them."""
    config = {
        "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.001", "segment.ms": "100",
        "max.compaction.lag.ms": "200", "min.compaction.lag.ms": "0", "delete.retention.ms": "0",
    }  # fmt: skip
    topic = kafka.topic(config=config)
    tp = TopicPartition(topic, 0)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for number in range(400):
            await producer.send_and_wait(topic, b"%d" % number, key=b"k%d" % (number % 7), partition=0)
        for _ in range(60):  # the cleaner runs every 15 s
            await asyncio.sleep(0.5)
            last = (await producer.send_and_wait(topic, b"roll", key=b"roll", partition=0)).offset
            async with Flow(kafka.bootstrap_servers, tmp_path, topic) as flow:
                await flow.until(partial(_has_reached, flow, last))
            if flow.count() < 400:
                break
    offsets = flow.offsets()[tp]
    assert len(offsets) < 400
    assert offsets == sorted(set(offsets))
    newest = {r.key: r.value for batch in flow.batches for r in batch.records}
    assert {newest[b"k%d" % k] for k in range(7)} == {b"%d" % number for number in range(393, 400)}
