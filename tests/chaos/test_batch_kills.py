"""Batch runs that are killed, and whose database goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from tests.harness import ROOT, wait_until
from tests.providers.processes import alive
from tests.providers.spark import Quiet, batch_run, batch_scene, check, run_batch
from tests.scene import Scene, events, scene
from tidegate.cli.main import app
from tidegate.errors import EngineFailed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.providers.postgres import Database
    from tidegate.local.kafka import EmbeddedKafka
    from tidegate.local.postgres import EmbeddedPostgres

pytestmark = [
    pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.spark, pytest.mark.timeout(1800),
    pytest.mark.xdist_group("spark"),  # one process, one session
]  # fmt: skip


def killed_run(file: Path, where: str, number: int) -> None:
    """A run that is killed there (killed_batch.py), if it comes so far; with it go its JVM and its executors."""
    arguments = [sys.executable, "-m", "tests.providers.killed_batch", str(file), where, str(number)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    children: set[psutil.Process] = set()
    with subprocess.Popen(
        arguments, env=environment, cwd=file.parent, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:

        def ended() -> bool:
            if run.poll() is None:
                children.update(psutil.Process(run.pid).children(recursive=True))
            return run.poll() is not None

        try:
            wait_until(ended, 240, f"killed {where}")
            assert run.stderr is not None
            may_be_done = where == "any-moment" and run.returncode == 0
            assert run.returncode == -signal.SIGKILL or may_be_done, run.stderr.read()
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, children)), 30, "nothing of Spark is left")


def test_kills_between_the_writes_change_nothing(
    make_scene: Callable[..., Scene], spark: SparkSession, tmp_path: Path, seed: int, chaos: str
) -> None:
    """SIGKILL between dead letters and store, and between the store's commit and Kafka's results, in the long form also at any
    other moment: exact in both, and what is in the dead-letter topic twice has one id."""
    scene, random = make_scene(), Random(seed)
    scene.feed(events(random, 4000))
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(scene.pipeline))
    killed_run(file, "before-store", 2)
    assert 0 < scene.applied() <= 700
    killed_run(file, "after-store", 2)
    assert 700 < scene.applied() <= 2100
    for _ in range(18 if chaos == "long" else 0):
        where = random.choice(("before-store", "after-store", "any-moment"))
        sys.stdout.write(f"{scene.applied()} of {len(scene.produced)} applied, killed {where}\n")
        scene.feed(events(random, 1500, first=len(scene.produced)))  # three micro-batches
        killed_run(file, where, random.randint(1, 12_000) if where == "any-moment" else random.randint(1, 2))
    report = run_batch(spark, scene.pipeline, max_records=700)
    assert scene.applied() == len(scene.produced)
    assert report.total.read < len(scene.produced)
    assert check(scene, repeats=True) > 0, "the kill came before the dead letters"
    assert CliRunner().invoke(app, ["ledger", str(file)]).exit_code == 0


def test_an_executor_that_is_killed_in_a_task(
    make_scene: Callable[..., Scene], spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The run ends with Spark's error and nothing of the micro-batch written; the next one is exact."""
    # What executors have in their environment; the process of this test is none of them.
    monkeypatch.setitem(spark.sparkContext.environment, "TIDEGATE_TEST_KILL", str(tmp_path / "kill"))
    scene = batch_scene(make_scene, settings={"handlers": [{"call": "tests.handlers:die_once"}]})
    scene.feed(events(Random(seed), 1500))
    (tmp_path / "kill").touch()
    run = batch_run(spark, scene.pipeline, max_records=600)
    with pytest.raises(EngineFailed, match=r"Spark ended a micro-batch: .*Python worker exited unexpectedly"):
        run.run()
    assert scene.applied() == run.report.total.read < 1500
    assert not (tmp_path / "kill").exists()
    run_batch(spark, scene.pipeline, max_records=600)
    check(scene, repeats=True)


def test_a_database_that_goes_away(
    make_scene: Callable[..., Scene], own_postgres: EmbeddedPostgres, spark: SparkSession, seed: int, chaos: str
) -> None:
    """A run waits until the database is back, in the long form after 30 s, and goes on; nothing is dead-lettered for it."""
    retry = {"retry": {"maxAttempts": 2, "initialDelayMs": 50}}
    scene, random = make_scene(url=own_postgres.url, settings={"errorHandling": retry}), Random(seed)
    scene.feed(events(random, 500))
    watch = Quiet()
    run = batch_run(spark, scene.pipeline, watch, trigger="processingTime=1 ms")
    running = threading.Thread(target=run.run)
    running.start()
    try:
        wait_until(lambda: scene.applied() == 500, 120, "the first are applied")
        own_postgres.kill()
        scene.feed(events(random, 500, first=500))
        wait_until(lambda: bool(watch.waits), 60, "the run waits")
        time.sleep(30 if chaos == "long" else 0)
        own_postgres.start()
        wait_until(lambda: scene.applied() == 1000, 120, "all applied")
        # Quiet partitions become idle, as under a worker, and their windows are called final.
        wait_until(lambda: scene.rows("SELECT bool_and(final) FROM overall") == [(True,)], 60, "all final")
    finally:
        run.stop.set()
        running.join(60)
    assert run.report.outcome == "stopped"
    check(scene, repeats=True)


def test_a_broker_that_goes_away(
    own_kafka: EmbeddedKafka, postgres: Database, spark: SparkSession, tmp_path: Path, seed: int, chaos: str
) -> None:
    """While the broker is away, in the long form for 30 s, nothing is dead-lettered and the run does not end; afterwards it
    goes on."""
    with scene(own_kafka.bootstrap_servers, postgres.url, tmp_path) as made:
        random = Random(seed)
        made.feed(events(random, 500))
        run = batch_run(spark, made.pipeline, trigger="processingTime=1 ms")
        running = threading.Thread(target=run.run)
        running.start()
        try:
            wait_until(lambda: made.applied() == 500, 120, "the first are applied")
            own_kafka.kill()
            time.sleep(30 if chaos == "long" else 5)
            own_kafka.start()
            made.feed(events(random, 500, first=500))
            wait_until(lambda: made.applied() == 1000, 120, "all applied")
        finally:
            run.stop.set()
            running.join(60)
        assert run.report.outcome == "stopped"
        check(made, repeats=True)
