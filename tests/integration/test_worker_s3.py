"""A pipeline whose dead letters go to S3 alone: the worker and a run on Spark lose none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from dlq.s3.files import decode
from tests.harness import running, wait_until
from tests.providers.s3 import S3Server
from tests.providers.spark import batch_scene, run_batch
from tests.scene import Scene, events

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]


def queue(s3: S3Server, bucket: str, **settings: Any) -> dict[str, Any]:
    return {"errorHandling": {"deadLetterQueue": {"type": "s3", "config": s3.config(bucket, **settings)}}}


def places(s3: S3Server, bucket: str) -> Counter[tuple[int, int]]:
    """The origins of the dead letters in the bucket."""
    letters = [kept.envelope for name, data in s3.objects(bucket).items() for kept in decode(data, name)]
    return Counter((letter.origin.partition, letter.origin.offset) for letter in letters)


def waiting(scene: Scene) -> int:
    """How many records tidegate's own topic of dead letters still holds."""
    topic = f"{scene.id}..dead-letters"
    consumer = Consumer({"bootstrap.servers": scene.servers, "group.id": "test"})
    try:
        bounds = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in range(scene.partitions)]
        return sum(high - low for low, high in bounds)
    finally:
        consumer.close()


def test_a_worker(make_scene: Callable[..., Scene], s3: S3Server, seed: int) -> None:
    """While S3 is away the worker goes on; killed and started again it writes every dead letter, each once; what it has
    gathered when it is told to end is written then. The topic of tidegate's own is empty at the end."""
    bucket, random = s3.bucket(), Random(seed)
    scene = make_scene(settings=queue(s3, bucket, bufferAge="1 hour", bufferRecords=10))
    worker = scene.worker()
    s3.stop()
    with running(worker):
        scene.feed(events(random, 3000))
        wait_until(lambda: scene.applied() == 3000, 60, f"all applied\n{worker.tail()}")
        assert worker.metric("tidegate_dlq_uploaded_records_total") == 0
        worker.kill()
    s3.start()
    with running(worker):
        scene.feed(events(random, 300, first=3000))
        wait_until(lambda: scene.applied() == 3300, 60, f"all applied\n{worker.tail()}")
        gathered = 3 * 9  # at most, while there are too few for an object
        least = len(scene.truth().dead_letters()) - gathered
        wait_until(lambda: places(s3, bucket).total() >= least, 40, f"{least} in S3\n{worker.tail()}")
        assert worker.stop() == 0
    assert places(s3, bucket) == Counter(scene.truth().dead_letters())
    scene.check_database(scene.truth())
    assert waiting(scene) <= 3 * 3  # a transaction's marker is a record for the log


@pytest.mark.spark
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("spark")
def test_a_run_on_spark(make_scene: Callable[..., Scene], spark: SparkSession, s3: S3Server, seed: int) -> None:
    """The run ends when its dead letters are in S3."""
    bucket = s3.bucket()
    scene = batch_scene(make_scene, settings=queue(s3, bucket, bufferAge="1 hour"))
    scene.feed(events(Random(seed), 900))
    assert run_batch(spark, scene.pipeline, max_records=400).outcome == "finished"
    assert places(s3, bucket) == Counter(scene.truth().dead_letters())
