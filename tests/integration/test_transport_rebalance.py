"""Partitions move between workers, topics grow, owners are slow or fail."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from tests.aio import in_a_loop
from tests.providers.flow import Flow, Owner
from tidegate.record import TopicPartition
from tidegate.topics import TopicSpec, ensure_topics

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def produce(kafka: KafkaTopics, topic: str, partitions: int, rounds: int, pause: float = 0.0) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for number in range(rounds):
            for partition in range(partitions):
                await producer.send(topic, b"%d" % number, partition=partition)
            if pause:
                await asyncio.sleep(pause)
        await producer.flush()


@in_a_loop
async def test_partitions_move_without_loss_or_repetition(kafka: KafkaTopics, tmp_path: Path) -> None:
    """While records flow, a second worker joins and leaves: each record is finished once, in order."""
    topic, owner = kafka.topic(partitions=4), Owner()  # one owner: what both workers would read from the state
    feed = asyncio.create_task(produce(kafka, topic, 4, 600, pause=0.01))
    finished: list[tuple[TopicPartition, int]] = []
    flows = [
        Flow(kafka.bootstrap_servers, tmp_path / name, topic, owner=owner, group=f"g-{topic}", max_batch_records=20)
        for name in ("one", "two")
    ]
    for flow in flows:
        flow.finished = finished  # of both, in the order of finishing
    async with flows[0]:
        await flows[0].until(lambda: len(finished) > 100)
        async with flows[1]:
            await flows[1].until(lambda: len(flows[1].offsets()) == 2)
            await flows[1].until(lambda: flows[1].count() > 50)
            assert len(flows[0].consumer.assignment()) == 2
        await flows[0].until(lambda: len(flows[0].consumer.assignment()) == 4, seconds=30)
        await feed
        await flows[0].until(lambda: len(finished) >= 2400, seconds=30)
    for partition in range(4):
        assert [offset for tp, offset in finished if tp.partition == partition] == list(range(600))


@in_a_loop
async def test_new_partitions_are_picked_up(kafka: KafkaTopics, tmp_path: Path) -> None:
    """A topic that grows from 3 to 6 partitions is read in full, without a restart."""
    topic = kafka.topic(partitions=3)
    await produce(kafka, topic, 3, 50)
    async with Flow(kafka.bootstrap_servers, tmp_path, topic) as flow:
        await flow.until(lambda: flow.count() == 150)
        await ensure_topics({"bootstrap.servers": kafka.bootstrap_servers}, [TopicSpec(topic, 6)])
        await produce(kafka, topic, 6, 50)
        await flow.until(lambda: flow.count() == 450, seconds=30)
    assert {tp.partition: len(offsets) for tp, offsets in flow.offsets().items()} == {0: 100, 1: 100, 2: 100} | {
        3: 50, 4: 50, 5: 50,
    }  # fmt: skip


@in_a_loop
async def test_owner_finishes_before_partitions_go(kafka: KafkaTopics, tmp_path: Path) -> None:
    """On a stop the owner may finish what is in hand, and what it finishes is committed; nothing new is begun."""
    topic = kafka.topic()
    tp = TopicPartition(topic, 0)
    await produce(kafka, topic, 1, 100)
    flow = Flow(kafka.bootstrap_servers, tmp_path, topic, max_batch_records=10, max_in_flight=3)

    async def finish() -> None:
        await asyncio.sleep(0.3)
        flow.done(flow.events[0])

    flow.hold, flow.owner.before_release = True, finish
    async with flow:
        await flow.until(lambda: len(flow.events) == 3)
    assert len(flow.events) == 3
    assert flow.committed() == {tp: 10}


@in_a_loop
async def test_slow_owner_is_cut_off(kafka: KafkaTopics, tmp_path: Path) -> None:
    """An owner that does not finish within the drain timeout is cancelled, and the stop goes on."""
    topic = kafka.topic()
    await produce(kafka, topic, 1, 10)
    flow = Flow(kafka.bootstrap_servers, tmp_path, topic, drain_timeout=0.5)
    flow.owner.before_release = lambda: asyncio.sleep(60)
    async with asyncio.timeout(20):
        async with flow:
            await flow.until(lambda: flow.count() == 10)
    assert flow.owner.calls == [("assigned", frozenset({TopicPartition(topic, 0)}))]


@pytest.mark.parametrize("fault", ["agent", "assigned", "out_of_range"])
def test_failures_stop_the_worker(kafka: KafkaTopics, tmp_path: Path, fault: str) -> None:
    """A worker whose agent or owner raises ends by itself, with a non-zero exit, and says why."""
    topic = kafka.topic()
    asyncio.run(produce(kafka, topic, 1, 10))
    script = textwrap.dedent(
        """
        import os, faust
        from mode.supervisors import CrashingSupervisor
        from tidegate.config.kafka import Kafka
        from transport import batch_topic, faust_settings, use_transport
        fault = os.environ["FAULT"]
        settings = faust_settings(Kafka(bootstrap_servers=os.environ["SERVERS"]))
        app = faust.App("f-" + os.environ["TOPIC"], web_enabled=False, datadir=os.environ["DIRECTORY"], **settings)
        use_transport(app)
        class Owner:
            async def assigned(self, tps):
                if fault == "assigned":
                    raise RuntimeError("the fault of assigned")
                return {tp: 9999 if fault == "out_of_range" else 0 for tp in tps}
            async def revoked(self, tps, deadline):
                pass
            async def out_of_range(self, tp, offset):
                raise RuntimeError("the fault of out_of_range")
        app.tide_ownership = Owner()
        @app.agent(batch_topic(app, os.environ["TOPIC"]), concurrency=1, supervisor_strategy=CrashingSupervisor)
        async def process(stream):
            async for batch in stream.noack():
                raise RuntimeError("the fault of agent")
        faust.Worker(app, loglevel="error").execute_from_commandline()
        """
    )
    variables = {"FAULT": fault, "SERVERS": kafka.bootstrap_servers, "TOPIC": topic, "DIRECTORY": str(tmp_path)}
    worker = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **variables}, capture_output=True, timeout=60, check=False
    )
    assert worker.returncode == 1
    assert f"the fault of {fault}" in (worker.stdout + worker.stderr).decode()
