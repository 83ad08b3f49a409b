"""Bulk reading of a changelog into the local state, and the topics it needs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition as Bound
from confluent_kafka.admin import AdminClient

from tests.aio import in_a_loop
from tidegate.calls import Calls
from tidegate.clock import Deadline
from tidegate.config.topic_settings import STATE, topic_settings, trouble_with
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.topics import TopicSpec, ensure_topics, partition_counts
from worker.producer import PartitionProducer
from worker.records import Rows
from worker.restore import restore
from worker.statedb import PartitionDB

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def write(kafka: KafkaTopics, topic: str, chunks: list[list[tuple[bytes, bytes | None]]]) -> int:
    """One transaction per chunk. Returns the offset of the last row."""
    producer = PartitionProducer({"bootstrap_servers": kafka.bootstrap_servers}, f"p-{topic}")
    await producer.start()
    for chunk in chunks:
        last = (await producer.commit([Rows(topic, 0, [k for k, _ in chunk], [v for _, v in chunk])]))[topic, 0]
    await producer.stop()
    return last


@in_a_loop
async def test_state_is_restored(kafka: KafkaTopics, tmp_path: Path) -> None:
    """Deleted local state is restored in full, state that is behind only from where it is, and then nothing is read."""
    topic, options = kafka.topic(), {"bootstrap.servers": kafka.bootstrap_servers}
    chunks: list[list[tuple[bytes, bytes | None]]] = [
        [(b"k%d" % (i % 97), None if i % 11 == 0 else b"%d" % i) for i in range(c * 500, c * 500 + 500)]
        for c in range(50)
    ]
    model = {key: value for chunk in chunks for key, value in chunk}
    last = await write(kafka, topic, chunks)
    db = PartitionDB(tmp_path / "p")
    restored = await restore(options, topic, 0, 0, db.apply, asyncio.to_thread)
    assert (restored.records, restored.ahead, db.changelog_offset) == (25_000, False, last)
    assert dict(db.scan(b"", b"\xff")) == {key: value for key, value in model.items() if value is not None}
    assert (await restore(options, topic, 0, last + 1, db.apply, asyncio.to_thread)).records == 0
    newest = await write(kafka, topic, [[(b"new", b"1")]])
    restored = await restore(options, topic, 0, last + 1, db.apply, asyncio.to_thread)
    assert (restored.records, db.changelog_offset, db.get([b"new"])) == (1, newest, [b"1"])
    db.close()
    assert restored.end_offset == newest + 2  # the commit marker is the last


@in_a_loop
async def test_empty_trimmed_and_foreign_logs(kafka: KafkaTopics) -> None:
    """An empty log restores nothing; a trimmed one from its start; an offset behind its end says: wipe the state."""
    topic = kafka.topic()
    options: dict[str, str | int | float | bool] = {"bootstrap.servers": kafka.bootstrap_servers}
    read: list[bytes] = []

    def keep(keys: list[bytes], values: list[bytes | None], last: int) -> None:
        read.extend(keys)

    assert (await restore(options, topic, 0, 0, keep, asyncio.to_thread)).records == 0
    assert (await restore(options, topic, 0, 5, keep, asyncio.to_thread)).ahead
    await write(kafka, topic, [[(b"%d" % i, b"v")] for i in range(10)])
    admin = AdminClient(options)
    for future in admin.delete_records([Bound(topic, 0, 10)]).values():
        future.result()
    restored = await restore(options, topic, 0, 3, keep, asyncio.to_thread)
    assert (read, restored.records, restored.ahead) == ([b"5", b"6", b"7", b"8", b"9"], 5, False)
    for future in admin.delete_records([Bound(topic, 0, 20)]).values():
        future.result()
    assert (await restore(options, topic, 0, 3, keep, asyncio.to_thread)).records == 0


@in_a_loop
async def test_a_cancelled_restore_ends_at_the_next_chunk(kafka: KafkaTopics) -> None:
    """Its thread is still writing when the caller has gone, and says when it has stopped: the database can be closed then."""
    topic = kafka.topic()
    await write(kafka, topic, [[(b"%d" % i, b"v") for i in range(15_000)] for _ in range(4)])
    writing, let_go, chunks = threading.Event(), threading.Event(), []

    def slow(keys: list[bytes], values: list[bytes | None], last: int) -> None:
        writing.set()
        let_go.wait(10)
        chunks.append(len(keys))

    with ThreadPoolExecutor() as executor:
        calls = Calls(executor)
        task = asyncio.create_task(restore({"bootstrap.servers": kafka.bootstrap_servers}, topic, 0, 0, slow, calls))
        await asyncio.to_thread(writing.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await calls.finished(Deadline(0.1))
        let_go.set()
        assert await calls.finished(Deadline(10))
    assert len(chunks) == 1


@in_a_loop
async def test_a_restore_from_a_broker_that_is_away_is_cut_short() -> None:
    """It waits for the broker, and a revocation does not wait for it: its thread ends within two seconds."""
    with ThreadPoolExecutor() as executor:
        calls = Calls(executor)
        away = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
        task = asyncio.create_task(restore(away, "t", 0, 0, lambda *_: None, calls))
        await asyncio.sleep(0.3)
        assert not task.done()
        task.cancel()
        assert await calls.finished(Deadline(2.5))


@in_a_loop
async def test_faults_of_apply_are_raised(kafka: KafkaTopics) -> None:
    """What writing the state raises ends the restore with that error."""
    topic = kafka.topic()
    await write(kafka, topic, [[(b"a", b"1")]])

    def fail(keys: list[bytes], values: list[bytes | None], last: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await restore({"bootstrap.servers": kafka.bootstrap_servers}, topic, 0, 0, fail, asyncio.to_thread)


@in_a_loop
async def test_topics_are_created_and_grown(kafka: KafkaTopics) -> None:
    """Missing topics are created, small ones grown, large ones left alone; each can be written to at once."""
    base = kafka.topic(partitions=2)
    options: dict[str, str | int | float | bool] = {"bootstrap.servers": kafka.bootstrap_servers}
    fresh = f"{base}-changelog"
    specs = [TopicSpec(base, 4), TopicSpec(fresh, 4, {"cleanup.policy": "compact"})]
    try:
        found = await asyncio.gather(
            ensure_topics(options, specs), ensure_topics(options, specs)
        )  # two workers at once
        assert list(found) == [{base: 4, fresh: 4}] * 2
        await write(kafka, fresh, [[(b"a", b"1")]])
        assert await ensure_topics(options, [TopicSpec(base, 1)]) == {base: 4}
        assert await partition_counts(options, [base, fresh]) == {base: 4, fresh: 4}
    finally:
        admin = AdminClient(options)
        for future in admin.delete_topics([fresh]).values():
            future.result()


@in_a_loop
@pytest.mark.parametrize(
    ("settings", "trouble"),
    [
        ({"cleanup.policy": "delete"}, "cleanup.policy is 'delete'"),
        ({"cleanup.policy": "compact,delete"}, "cleanup.policy is 'compact,delete'"),
        ({"cleanup.policy": "compact", "delete.retention.ms": "3600000"}, "delete.retention.ms is 3600000"),
    ],
)
async def test_a_topic_that_forgets_holds_no_state(kafka: KafkaTopics, settings: dict[str, str], trouble: str) -> None:
    """One that is there with such settings is refused, with the command that mends it; what holds no state may have any."""
    topic, options = kafka.topic(config=settings), {"bootstrap.servers": kafka.bootstrap_servers}
    with pytest.raises(ConfigError, match=rf"{trouble}(.|\n)*--topic {topic} --add-config cleanup.policy=compact"):
        await ensure_topics(options, [TopicSpec(topic, 1, STATE, holds_state=True)])
    assert await ensure_topics(options, [TopicSpec(topic, 1)]) == {topic: 1}


@in_a_loop
async def test_topics_that_tidegate_makes_hold_state(kafka: KafkaTopics) -> None:
    """Kafka takes the settings, and they are in force."""
    topic, options = kafka.topic(), {"bootstrap.servers": kafka.bootstrap_servers}
    admin, specs = AdminClient(options), [TopicSpec(f"{topic}..{n}", 1, STATE, holds_state=True) for n in range(2)]
    try:
        await ensure_topics(options, specs)
        for found in topic_settings(admin, [spec.name for spec in specs], 10).values():
            assert isinstance(found, dict)
            assert {name: found[name] for name in STATE} == dict(STATE)
            assert trouble_with(found) is None
    finally:
        for future in admin.delete_topics([spec.name for spec in specs]).values():
            future.result()


@in_a_loop
async def test_topic_errors_are_clear(kafka: KafkaTopics) -> None:
    """A source topic that does not exist and a configuration that Kafka refuses are named, with the way out."""
    options = {"bootstrap.servers": kafka.bootstrap_servers}
    with pytest.raises(ConfigError, match="'no-such-topic' does not exist"):
        await partition_counts(options, ["no-such-topic"])
    with pytest.raises(ConfigError, match="cannot create topic 'bad-topic'"):
        await ensure_topics(options, [TopicSpec("bad-topic", 1, {"cleanup.policy": "sometimes"})])
    with pytest.raises(BrokerUnavailable):
        await partition_counts({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, ["x"], within=1.0)
