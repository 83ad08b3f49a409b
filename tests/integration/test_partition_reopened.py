"""A partition that is opened again after a failure, on a real broker."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.aio import in_a_loop
from tidegate.clock import Deadline
from tidegate.config.topics import changelog_topic
from tidegate.errors import BrokerUnavailable, StateWentBack
from tidegate.record import TopicPartition
from worker.partition import PartitionTask
from worker.statedb import PartitionDB

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


class OpenedAt(PartitionTask):
    """Its state is at the given offsets, one for each time that it is opened."""

    def __init__(self, context: Any, topic: str, offsets: list[int]) -> None:
        super().__init__(TopicPartition(topic, 0), context)
        self.offsets = offsets

    def _load(self, db: PartitionDB) -> int:
        return self.offsets.pop(0)

    async def _work(self, records: list[Any]) -> None: ...

    async def _tick(self) -> None: ...


async def opened(partition: PartitionTask) -> None:
    """Opened, as soon as the broker knows the topics that were just made."""
    deadline = Deadline(20)
    while True:
        try:
            return await partition._ensure_open()
        except BrokerUnavailable:
            if deadline.expired:
                raise
            await asyncio.sleep(0.1)


@in_a_loop
async def test_a_state_that_went_back_is_not_gone_on_with(kafka: KafkaTopics, tmp_path: Path) -> None:
    """A partition that comes back at an earlier offset ends the worker, which reads the records between again when it
    starts: the records that the consumer holds are those after them."""
    topic = kafka.topic()
    kafka.topic(name=changelog_topic("p", topic))
    with ThreadPoolExecutor() as pool:
        context = SimpleNamespace(
            plan=SimpleNamespace(
                pipeline=SimpleNamespace(pipeline_id="p", worker=SimpleNamespace(commit_interval=100)),
            ),
            kafka={"bootstrap_servers": kafka.bootstrap_servers},
            confluent={"bootstrap.servers": kafka.bootstrap_servers},
            executor=pool,
            readers=pool,
            partition_counts={},
            state_dir=tmp_path,
            observer=SimpleNamespace(restored=lambda *_: None),
        )
        partition = OpenedAt(context, topic, [7, 9, 8])
        for upto in (7, 9):
            await opened(partition)
            assert partition.upto == upto
            await partition._forget(BrokerUnavailable("away"))
        with pytest.raises(StateWentBack, match="was at offset 9 and is at 8 now"):
            await opened(partition)
        await partition.stop(Deadline(5))
