"""What a batch run does, on the test run's Spark session: where it starts, what it refuses, and how it shares a pipeline."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # its stubs do not re-export it

from batch.publish.kafka import KafkaTarget
from batch.report import Report
from batch.sink import Commit
from tests.harness import eventually, running, wait_until
from tests.providers.spark import Quiet, batch_run, batch_scene, check, run_batch
from tests.scene import MINUTE, Scene, events, record
from tests.truth import Aggregate
from tidegate.errors import FloodGuardTripped, OffsetOutOfRange, PipelineAborted, StoreFenced

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.spark, pytest.mark.timeout(600),
    pytest.mark.xdist_group("spark"),  # one process, one session
]  # fmt: skip
Make = Callable[..., Scene]


def test_a_run_goes_on_where_the_database_is(
    make_scene: Make, spark: SparkSession, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run reads what came since, new partitions too, whatever has become of Spark's checkpoint, which is where it was
    told to be while the query lasts, whose name is the pipeline's. Where it dies between the database and Kafka, the third reads
    nothing, and sends what is missing."""
    scene, random = make_scene(partitions=2), Random(seed)
    scene.feed(events(random, 900))
    looking = Looking(spark, tmp_path / "spark")
    first = batch_run(spark, scene.pipeline, looking, max_records=225, checkpoint=tmp_path / "spark").run()
    assert looking.queries == {scene.id}
    assert looking.kept
    assert (first.total.read, first.outcome, list((tmp_path / "spark").iterdir())) == (900, "finished", [])
    assert first.batches == 4  # of one size: rounded as Spark does it, a few records would be left for a fifth
    check(scene)
    assert first.published["kafka"] > 0
    for done in scene.admin.create_partitions([NewPartitions(scene.topic, 3)]).values():
        done.result(30)
    scene.partitions = 3
    scene.feed(events(random, 300, first=900))
    (tmp_path / "spark" / "offsets").mkdir()
    second = batch_run(spark, scene.pipeline, checkpoint=tmp_path / "spark")
    with monkeypatch.context() as patch:
        patch.setattr(KafkaTarget, "write", _killed)
        with pytest.raises(RuntimeError, match="killed"):
            second.run()
    assert second.report.total.read == 300
    assert len(second.report.partitions()) == 3
    with pytest.raises(AssertionError, match="results of"):
        check(scene)
    third = run_batch(spark, scene.pipeline)
    assert (third.total.read, third.published["kafka"] > 0) == (0, True)
    check(scene)


class Looking(Quiet):
    """A watch that looks after each micro-batch which queries Spark has, and whether the directory has their account."""

    def __init__(self, spark: SparkSession, directory: Path) -> None:
        super().__init__()
        self.spark, self.directory, self.queries, self.kept = spark, directory, set[str](), False

    def committed(self, report: Report, commit: Commit, lag: int | None) -> None:
        self.queries |= {query.name for query in self.spark.streams.active}
        self.kept |= any(self.directory.rglob("offsets"))


def _killed(*_: Any, **__: Any) -> None:
    raise RuntimeError("killed")


def test_what_was_aborted_is_not_read(make_scene: Make, spark: SparkSession, seed: int) -> None:
    """Records of transactions, with the gaps that markers and an aborted transaction leave, are read exactly once."""
    scene = batch_scene(make_scene, partitions=1)
    given = list(events(Random(seed), 600))
    producer = Producer({"bootstrap.servers": scene.servers, "transactional.id": scene.id})
    producer.init_transactions(30)
    placed: list[tuple[int, int]] = []
    for start, keep in ((0, True), (200, False), (200, True), (400, True), (0, False)):
        producer.begin_transaction()
        for one in given[start : start + 200]:
            body = {name: part for name, part in one.items() if name != "meant"}
            producer.produce(
                scene.topic,
                partition=0,
                **body,
                on_delivery=lambda _, m, keep=keep: keep and placed.append((0, m.offset())),
            )
        producer.flush(30)
        producer.commit_transaction(30) if keep else producer.abort_transaction(30)
    scene.remember(given, placed)
    assert run_batch(spark, scene.pipeline, max_records=150).total.read == 600
    check(scene)
    assert run_batch(spark, scene.pipeline).total.read == 0


def test_a_value_that_the_database_refuses(make_scene: Make, spark: SparkSession, seed: int) -> None:
    """A NUL character is text for Kafka, not for PostgreSQL: exactly its records are dead-lettered, at stage sink."""
    aggregates = (Aggregate("per_key", MINUTE, MINUTE, ("key",)), Aggregate("overall", MINUTE, MINUTE, ("colour",)))
    scene = batch_scene(make_scene, aggregates=aggregates)
    scene.pipeline["worker"] = {"maxBatchRecords": 100}
    given = list(events(Random(seed), 900))
    for number in (7, 400, 401, 800):
        one = next(g for g in events(Random(number), 1, first=number, bad=False))
        one["meant"] = replace(one["meant"], kind="refused", colour="nul\x00")
        given[number] = record(one["meant"])
    scene.feed(given)
    assert run_batch(spark, scene.pipeline, trigger="once").total.read == len(given)
    check(scene, repeats=True)
    at_sink = [m for m in scene.read(".dlq") if m.header("tidegate.dlq.stage") == "sink"]
    assert {m.header("tidegate.dlq.error.type") for m in at_sink} == {"SinkRefused"}
    assert len({m.header("tidegate.dlq.id") for m in at_sink}) == 4


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"errorHandling": {"floodGuard": {"maxRatio": 0.2, "window": 100}}}, FloodGuardTripped, "RuleViolation"),
        ({"errorHandling": {"deadLetterQueue": {"enabled": False}}}, PipelineAborted, "no dead-letter queue"),
    ],
)
def test_what_ends_a_worker_ends_a_run(
    make_scene: Make, spark: SparkSession, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    """A flood of failures, or one without a dead-letter queue: the run says why, and nothing of it is written."""
    scene = batch_scene(make_scene, partitions=1, settings=settings)
    scene.feed(record(replace(one["meant"], amount=-5)) for one in events(Random(1), 200, bad=False))
    run = batch_run(spark, scene.pipeline)
    with pytest.raises(error, match=words):
        run.run()
    assert scene.applied() == 0
    assert run.report.outcome == "failed"
    assert words in str(run.report.error)
    assert f"{scene.id}.dlq" not in scene.admin.list_topics(timeout=10).topics or scene.read(".dlq") == []


def test_offsets_that_the_log_has_lost(make_scene: Make, spark: SparkSession, seed: int) -> None:
    """Records that were deleted before they were read end the run, unless `onOutOfRange: earliest` accepts the loss."""
    scene, random = batch_scene(make_scene, partitions=1), Random(seed)
    scene.feed(events(random, 200))
    run_batch(spark, scene.pipeline)
    scene.feed(events(random, 200, first=200))
    for done in scene.admin.delete_records([TopicPartition(scene.topic, 0, 300)]).values():
        done.result(30)
    with pytest.raises(OffsetOutOfRange, match=r"offset 200, but the log has 300 .*onOutOfRange: earliest"):
        run_batch(spark, scene.pipeline)
    scene.pipeline["source"]["onOutOfRange"] = "earliest"
    scene.produced = [one for one in scene.produced if not 200 <= one.offset < 300]
    assert run_batch(spark, scene.pipeline).total.read == 100
    check(scene)


def test_starting_at_the_end_is_remembered(make_scene: Make, spark: SparkSession, seed: int) -> None:
    """With `startAt: latest` the first run reads nothing of what is there, and the next one all that came since; of a
    partition that the topic has got meanwhile from its first record on."""
    scene, random = batch_scene(make_scene, partitions=1), Random(seed)
    scene.pipeline["source"]["startAt"] = "latest"
    scene.feed(events(random, 50))
    assert run_batch(spark, scene.pipeline).total.read == 0
    scene.produced.clear()
    scene.feed(events(random, 50, first=50))
    assert run_batch(spark, scene.pipeline).total.read == 50
    for done in scene.admin.create_partitions([NewPartitions(scene.topic, 2)]).values():
        done.result(30)
    scene.partitions = 2
    scene.feed({**one, "partition": 1} for one in events(random, 50, first=100))
    assert run_batch(spark, scene.pipeline).total.read == 50
    check(scene)


def test_a_worker_and_a_run_at_once(make_scene: Make, spark: SparkSession, seed: int) -> None:
    """Started on one pipeline by mistake, the run is fenced once the worker has taken its partitions back; before it,
    between them and after it nothing is lost or counted twice, nor on Kafka, which both write to."""
    scene, random = make_scene(partitions=2), Random(seed)
    scene.feed(events(random, 1000))
    worker, over, watch = scene.worker(), threading.Event(), Quiet()

    def load() -> None:
        """The worker is stopped until the run has written something: then both are at it."""
        number = 1000
        while not over.is_set():
            scene.feed(events(random, 200, first=number))
            number += 200
            if watch.lags:
                worker.signal(signal.SIGCONT)
            time.sleep(0.5)

    loading = threading.Thread(target=load)
    run = batch_run(spark, scene.pipeline, watch, trigger="processingTime=1 ms", max_records=500)
    with running(worker):
        wait_until(lambda: scene.applied() == 1000, 90, f"the first are applied\n{worker.tail()}")
        worker.signal(signal.SIGSTOP)
        loading.start()
        watchdog = threading.Timer(300, run.stop.set)
        watchdog.start()
        try:
            with pytest.raises(StoreFenced):
                run.run()
        finally:
            over.set()
            loading.join()
            watchdog.cancel()
            worker.signal(signal.SIGCONT)
        wait_until(lambda: scene.applied() == len(scene.produced), 90, f"all applied\n{worker.tail()}")
        # The totals of groups that spread come after the store; a worker that stops before them sends them at its next start.
        eventually(partial(check, scene, repeats=True, engines=2), 60)
        assert worker.stop() == 0
    scene.feed(events(random, 100, first=10**6))
    assert run_batch(spark, scene.pipeline).total.read == 100
    check(scene, repeats=True, engines=2)
