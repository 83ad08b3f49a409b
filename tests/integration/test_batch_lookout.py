"""What the watch looks at, on a real broker and database; and a catch-up that it makes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
import yaml
from confluent_kafka import Consumer

from batch.catchup.look import Lookout, opened
from batch.catchup.watch import Watcher
from tests.harness import ROOT, wait_until
from tests.providers.catchup import Steps, catchup, pipeline_of
from tests.scene import Scene, events
from tidegate.errors import BrokerUnavailable
from tidegate.record import TopicPartition

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.spark, pytest.mark.timeout(300),
    pytest.mark.xdist_group("spark"),  # one process, one session
]  # fmt: skip


@contextmanager
def member(scene: Scene) -> Iterator[None]:
    """Somebody in the pipeline's group, as a worker is."""
    consumer = Consumer({"bootstrap.servers": scene.servers, "group.id": scene.id, "enable.auto.commit": False})
    consumer.subscribe([scene.topic])
    try:
        wait_until(lambda: (consumer.poll(0.1), bool(consumer.assignment()))[1], 30, "it has joined", every=0)
        yield
    finally:
        consumer.close()


def sees(lookout: Lookout) -> bool:
    """A broker that has just started may not know yet who keeps a group."""
    try:
        lookout.look()
    except BrokerUnavailable:
        return False
    return True


def test_the_watch_sees_and_takes_over(make_scene: Callable[..., Scene], spark: SparkSession, seed: int) -> None:
    """What is not applied, how old the oldest of it is, and who is in the group; a catch-up leaves nothing of the first two,
    and a hold shows while it lasts."""
    fallback = {"mode": "auto", "lagRecords": 100, "lagSeconds": 3600, "hold": "3 seconds"}
    scene = make_scene(settings={"fallback": fallback})
    pipeline = pipeline_of(scene)
    with opened(pipeline) as lookout:
        wait_until(lambda: sees(lookout), 30, "the broker knows the group's coordinator")
        assert lookout.look().lag == 0
        now = int(time.time() * 1000)
        scene.feed({**one, "timestamp": now - 60_000} for one in events(Random(seed), 200))
        scene.feed({**one, "timestamp": now - 120_000} for one in events(Random(seed), 1, first=200))
        found = lookout.look()
        assert (found.lag, found.workers, found.held_by) == (201, 0, None)
        assert found.oldest is not None
        assert 60 <= found.oldest < 180
        first = lookout._reader.first_timestamps({TopicPartition(scene.topic, n): 0 for n in range(scene.partitions)})
        assert set(first.values()) == {now - 60_000}
        with member(scene):
            assert lookout.look().workers == 1
        holders: list[str | None] = []
        made = catchup(spark, scene, Steps(lambda: holders.append(lookout.look().held_by)))
        Watcher(pipeline.fallback, lookout.look, lambda: made.run() and None, "").once()
        assert set(holders) == {made._holder}
        after = lookout.look()
        assert (after.lag, after.oldest, after.held_by) == (0, None, None)
    truth = scene.truth()  # results on Kafka are for the workers to write, when they have the pipeline back
    scene.check_database(truth)
    scene.check_dead_letters(truth)
    scene.check_late(truth)


def test_the_command_watches_until_it_is_told_to_stop(
    make_scene: Callable[..., Scene], tmp_path: Path, seed: int
) -> None:
    """In mode suggest it says why and with which command, needs no Java, and ends with exit code 0."""
    scene = make_scene(settings={"fallback": {"mode": "suggest", "lagRecords": 100, "workerDownFor": None}})
    scene.feed(events(Random(seed), 200))
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(scene.pipeline))
    nowhere = {"JAVA_HOME": str(tmp_path / "nowhere"), "PATH": str(tmp_path / "nowhere")}
    with subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli.main", "batch", "catchup", str(file), "--watch"],
        env={**os.environ, **nowhere, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        try:
            assert watching.stderr is not None
            said = next((line for line in watching.stderr if "fallback.suggested" in line), "it has ended")
            assert "200 offsets are not applied (lagRecords: 100)" in said
            assert f"tidegate batch catchup {file}" in said
            watching.send_signal(signal.SIGTERM)
            assert watching.wait(30) == 0
        finally:
            watching.kill()
