"""Catch-ups that are killed anywhere, beside workers that are at work, dead, or asleep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.harness import PATIENCE, ROOT, WorkerProcess, running, wait_until
from tests.providers.killed_catchup import POINTS
from tests.providers.spark import check
from tests.scene import Scene, events

if TYPE_CHECKING:
    from tests.truth import Truth

pytestmark = [
    pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.spark, pytest.mark.timeout(1800),
    pytest.mark.usefixtures("spark_jars"),
]  # fmt: skip


def killed_catchup(file: Path, where: str, number: int) -> None:
    """It is killed there, or has done its work before it came so far."""
    arguments = [sys.executable, "-m", "tests.providers.killed_catchup", str(file), where, str(number)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        arguments, env=environment, cwd=file.parent, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            errors = process.communicate(timeout=240)[1]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    fewer = process.returncode == 0 and where.endswith("store")
    assert process.returncode == -signal.SIGKILL or fewer, errors


def exact(scene: Scene, truth: Truth) -> None:
    """Database, dead letters, late records, and the newest results on Kafka."""
    check(scene, repeats=True)
    for name in truth.aggregates:
        scene.check_results(truth, name, final=True)


def test_kills_change_nothing(make_scene: Callable[..., Scene], tmp_path: Path, seed: int, chaos: str) -> None:
    """SIGKILL after the hold, between the writes, before and after the hand-back, while a worker is alive, asleep from before
    the hold until after the kill, or started only then: exact results everywhere, and every ledger balances."""
    random = Random(seed)
    settings: dict[str, Any] = {"fallback": {"hold": "2 seconds"}, "dedupe": {"key": "id", "horizon": "1 hour"}}
    scene = make_scene(settings=settings, dedupe=True)
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(scene.pipeline))
    if chaos == "short":  # other tests have the two others each time, the one that sleeps is here alone
        points, workers = random.sample(POINTS, 2), ["asleep", random.choice(("alive", "dead"))]
        random.shuffle(workers)
    else:
        points, workers = random.choices(POINTS, k=20), random.sample(("alive", "asleep", "dead"), 3) * 7
    worker = scene.worker()
    with running(worker):
        for number, (point, state) in enumerate(zip(points, workers, strict=False)):
            sys.stdout.write(f"{state} worker, catch-up killed {point}\n")
            if state == "asleep":
                wait_until(lambda: scene.applied() >= len(scene.produced) - 500, 60, "the worker is at work")
                worker.signal(signal.SIGSTOP)
            elif state == "dead":
                worker.kill()
            scene.feed(events(random, 2500, first=number * 2500))
            killed_catchup(file, point, random.randint(1, 3))
            wake(worker, state)
        try:
            wait_for(scene)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{worker.tail()}") from error
        assert worker.stop() == 0


def wake(worker: WorkerProcess, state: str) -> None:
    if state == "asleep":
        worker.signal(signal.SIGCONT)
    elif state == "dead":
        worker.start()


def wait_for(scene: Scene) -> None:
    truth, deadline = scene.truth(), time.monotonic() + 60 * PATIENCE
    while True:
        try:
            exact(scene, truth)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return
