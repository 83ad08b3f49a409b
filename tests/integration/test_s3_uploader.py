"""Dead letters from their topic into S3: none is lost and none doubled, whatever happens to S3 or to who writes them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from dlq.s3.files import Kept, decode
from dlq.s3.uploader import Uploader, open_uploader
from tests.harness import ROOT, produce, read_topic, wait_until
from tests.providers.kafka import KafkaTopics
from tests.providers.s3 import S3Server
from tests.unanswered import unanswered_once
from tests.unit.dlq.dead_letters import NOW_MS, letter, written
from tidegate.config.pipeline import Pipeline
from tidegate.errors import BucketUnavailable, ConfigError
from tidegate.record import TopicPartition
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter

pytestmark = [pytest.mark.slow, pytest.mark.kafka]
HOUR = 3_600_000


class Scene:
    """A dead-letter topic, a bucket, and the pipeline that they belong to."""

    def __init__(self, kafka: KafkaTopics, s3: S3Server, partitions: int = 2, **config: Any) -> None:
        self.topic, self.bucket = kafka.topic(partitions), s3.bucket()
        self.kafka, self.s3, self.count = kafka, s3, 0
        self.id = f"p-{self.topic}"
        self.document = {
            "pipelineId": self.id,
            "kafka": {"bootstrapServers": kafka.bootstrap_servers, "sessionTimeout": "6 s"},
            "errorHandling": {
                "retry": {"maxAttempts": 2, "initialDelayMs": 50, "maxDelayMs": 200},
                "circuitBreaker": {"failureThreshold": 3, "resetTimeoutSeconds": 0.3},
                "deadLetterQueue": {
                    "type": ["kafka", "s3"],
                    "config": {"topic": self.topic, **s3.config(self.bucket, **{"bufferAge": "300 ms", **config})},
                },
            },
        }

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline.model_validate(self.document)

    def fail(self, number: int) -> None:
        """So many more records of three hours fail, a tenth of them another pipeline's."""
        first, self.count = self.count, self.count + number

        def letters() -> Iterator[dict[str, Any]]:
            for offset in range(first, self.count):
                made = letter(offset, now_ms=NOW_MS + offset % 3 * HOUR, key=b"k%d" % offset)
                key, value, headers = written(made)
                pipeline = b"others" if offset % 10 == 9 else self.id.encode()
                headers = [(n, pipeline if n == "tidegate.dlq.pipeline" else v) for n, v in headers]
                yield {"key": key, "value": value, "headers": headers}

        produce(self.kafka.bootstrap_servers, self.topic, letters())

    def expected(self) -> Counter[tuple[TopicPartition, int, bytes | None]]:
        messages = read_topic(self.kafka.bootstrap_servers, self.topic)
        ours = [one for one in messages if one.header("tidegate.dlq.pipeline") == self.id]
        return Counter((TopicPartition(one.topic, one.partition), one.offset, one.key) for one in ours)

    def found(self) -> Counter[tuple[TopicPartition, int, bytes | None]]:
        return Counter((one.tp, one.offset, one.key) for one in self.kept())

    def kept(self) -> list[Kept]:
        return [one for name, data in self.s3.objects(self.bucket).items() for one in decode(data, name)]

    def wait_complete(self, timeout: float = 20.0) -> None:
        wanted = self.expected()
        wait_until(lambda: self.found() == wanted, timeout, f"{wanted.total()} dead letters in S3")

    @contextmanager
    def uploading(self, metrics: Metrics | None = None) -> Iterator[Uploader]:
        uploader = open_uploader(self.pipeline, metrics=metrics)
        assert uploader is not None
        uploader.start()
        try:
            yield uploader
        finally:
            uploader.stop(10.0)


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_each_is_there_once(kafka: KafkaTopics, s3: S3Server, form: str) -> None:
    """Every dead letter of the pipeline is in one object, in the folder of its hour; other pipelines' are left to them."""
    scene = Scene(kafka, s3, format=form, partitionByStage=True, ServerSideEncryption="AES256")
    metrics = Metrics(PrometheusReporter())
    scene.fail(700)
    with scene.uploading(metrics) as uploader:
        scene.wait_complete()
        scene.fail(50)
        uploader.finish()
        assert scene.found() == scene.expected()
    folders = {name.rpartition("/")[0] for name in s3.objects(scene.bucket)}
    hours = [f"dead-letters/date=2023-11-{day}" for day in ("14/hour=22", "14/hour=23", "15/hour=00")]
    assert folders == {f"{hour}/pipeline={scene.id}/stage=decode" for hour in hours}
    head = s3.client.head_object(Bucket=scene.bucket, Key=next(iter(s3.objects(scene.bucket))))
    assert head["ServerSideEncryption"] == "AES256"


def test_gathered_until_there_are_enough(kafka: KafkaTopics, s3: S3Server) -> None:
    """What comes singly is gathered into few objects; what is gathered when the process ends is written then."""
    scene = Scene(kafka, s3, partitions=1, bufferRecords=30, bufferAge="1 hour")
    with scene.uploading() as uploader:

        def gathered() -> int:
            return sum(len(buffer.records) for buffer in uploader._buffers.values())

        scene.fail(20)
        wait_until(lambda: gathered() == 20, 30, "what is too little for an object waits")
        assert not scene.kept()
        scene.fail(10)
        wait_until(lambda: len(scene.kept()) == 27, 20, "the first thirty, less those of another pipeline")
        scene.fail(10)
        wait_until(lambda: gathered() == 10, 20, "the rest waits in turn")
        assert len(scene.kept()) == 27
    assert scene.found() == scene.expected()
    assert len(s3.objects(scene.bucket)) <= 6  # two cuts, three hours each


def test_s3_away(kafka: KafkaTopics, s3: S3Server, chaos: str) -> None:
    """While S3 is away nothing is read, lost or confirmed, and the membership of the group is kept; then all of it is
    written, each once."""
    scene = Scene(kafka, s3)
    scene.fail(200)
    with scene.uploading() as uploader:
        scene.wait_complete()
        s3.stop()
        scene.fail(500)
        time.sleep(30 if chaos == "long" else 1.5)
        wait_until(lambda: uploader.trouble is not None, 20, "it is said")
        wait_until(lambda: uploader._guard.breaker.state == "open", 20, "S3 is left alone for a while", every=0.02)
        with pytest.raises(BucketUnavailable, match="wait in topic"):
            uploader.finish(patience=0.3)
        s3.start()
        scene.fail(100)
        scene.wait_complete(30)
        wait_until(lambda: uploader.trouble is None, 20, "all is well again")
        assert uploader._guard.breaker.state == "closed"


def test_no_answer_when_partitions_come(kafka: KafkaTopics, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka does not say in time what is written already: it is asked again, and each letter is there once."""
    monkeypatch.setattr("dlq.s3.uploader.Consumer", unanswered := unanswered_once())
    scene = Scene(kafka, s3)
    scene.fail(100)
    with scene.uploading():
        scene.wait_complete()
    assert unanswered.asked > 1


@pytest.mark.chaos
def test_killed_anywhere(kafka: KafkaTopics, s3: S3Server, tmp_path: Path, chaos: str, seed: int) -> None:
    """Processes that are killed at any moment, and others that go on while they still write: no letter is lost, and a
    repeat overwrites what it repeats, so that none is there twice."""
    scene, random = Scene(kafka, s3, partitions=3, bufferRecords=40), Random(seed)
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(scene.document))
    for _ in range(12 if chaos == "long" else 1):
        feeding = threading.Thread(target=lambda: [scene.fail(100) or time.sleep(0.15) for _ in range(8)])
        feeding.start()  # there is something to be written in each round
        process = subprocess.Popen([sys.executable, "-c", _WRITE, str(file)], cwd=ROOT)
        before = len(s3.objects(scene.bucket))
        try:
            wait_until(lambda: len(s3.objects(scene.bucket)) > before, 20, "it writes", every=0.02)  # noqa: B023  # waited for before `before` changes
            time.sleep(random.random() / 2)
        finally:
            process.kill()
            process.wait()
            feeding.join()
    with scene.uploading() as uploader:
        uploader.finish()
    assert scene.found() == scene.expected()


_WRITE = """
import sys, time
from pathlib import Path
from dlq.s3.bucket import Bucket
from dlq.s3.uploader import open_uploader
put = Bucket.put
def slowly(*arguments):
    time.sleep(0.05)
    put(*arguments)
    time.sleep(0.05)
Bucket.put = slowly
from tidegate.config.loading import load_pipeline
open_uploader(load_pipeline(Path(sys.argv[1]))).start()
time.sleep(60)
"""


def test_two_share_the_partitions(kafka: KafkaTopics, s3: S3Server) -> None:
    """A second process takes over a part, and gives it back when it ends: each letter is there once."""
    scene = Scene(kafka, s3, partitions=4)
    with scene.uploading():
        scene.fail(200)
        with scene.uploading() as second:
            scene.fail(200)
            second.finish()
        scene.fail(100)
        scene.wait_complete()


def test_what_is_wrong_is_said_at_the_start(kafka: KafkaTopics, s3: S3Server) -> None:
    """A bucket that does not exist is named, with the field; one that does not answer is waited for."""
    scene = Scene(kafka, s3)
    scene.document["errorHandling"]["deadLetterQueue"]["config"]["bucket"] = "no-such-letters"  # type: ignore[index]  # a nested document of objects
    with pytest.raises(ConfigError, match=r"deadLetterQueue\.config\.bucket: there is no such bucket"):
        open_uploader(scene.pipeline)
    s3.stop()
    assert open_uploader(scene.pipeline) is not None


def test_the_agreement_is_kept(kafka: KafkaTopics, s3: S3Server) -> None:
    """A cut that was agreed on is written as it was agreed, though more has come since."""
    scene = Scene(kafka, s3, partitions=1)
    scene.fail(100)
    from confluent_kafka import Consumer
    from confluent_kafka import TopicPartition as KafkaPartition

    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": f"{scene.id}-dlq-s3"})
    place = KafkaPartition(scene.topic, 0, 5, json.dumps({"upto": 63}))
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()
    with scene.uploading() as uploader:
        uploader.finish()
    cuts = {name.rpartition("/")[2] for name in s3.objects(scene.bucket)}
    assert cuts == {f"{scene.topic}-00000-{a:020d}-{b:020d}.parquet" for a, b in ((5, 63), (64, 99))}
