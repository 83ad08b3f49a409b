"""`tidegate batch list`, `status` and `stop`: runs in processes of their own, seen and ended from this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from tests.harness import ROOT, wait_until
from tests.providers.processes import alive
from tests.providers.spark import batch_scene, check
from tests.scene import Scene, events
from tidegate.cli.main import app

pytestmark = [
    pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.spark, pytest.mark.timeout(300),
    pytest.mark.usefixtures("spark_jars"),
]  # fmt: skip


def batch(command: str, file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["batch", command, str(file), *arguments])


def runs(file: Path) -> list[dict[str, Any]]:
    """As `list --json` has them."""
    done = batch("list", file, "--json")
    assert done.exit_code == 0, done.stderr
    return list(json.loads(done.stdout))


@contextmanager
def started(
    scene: Scene, directory: Path, *options: str, **environment: str
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """`tidegate batch run` that goes on until it is stopped, and its pipeline file."""
    file = directory / "pipeline.yaml"
    file.write_text(yaml.safe_dump(scene.pipeline))
    with subprocess.Popen(
        [
            sys.executable, "-m", "tidegate.cli.main", "batch", "run", str(file), "--json",
            "--trigger", "processingTime=1 ms", *options,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:  # fmt: skip
        try:
            yield file, run
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)


def set_age(scene: Scene, seconds: int) -> None:
    """Let it be so long since the last beat of the scene's runs."""
    now = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
    scene.rows(f"UPDATE tidegate_runs SET beaten = {now} - {seconds * 1000} RETURNING run")


def test_a_run_is_watched_and_stopped_from_elsewhere(
    make_scene: Callable[..., Scene], tmp_path: Path, seed: int
) -> None:
    """Its positions are the database's, its metrics and Spark's pages answer where it says; asked to stop it ends after the
    micro-batch in hand, with exit code 0, everything that was read is committed, and there is nothing to stop any more."""
    scene = batch_scene(make_scene)
    scene.feed(events(Random(seed), 1000))
    with started(scene, tmp_path, "--max-records", "400", "--metrics-port", "0", "--ui") as (file, run):
        wait_until(lambda: run.poll() is not None or any(one["read"] == 1000 for one in runs(file)), 200, "all said")
        [listed] = runs(file)
        assert (listed["state"], listed["pid"], listed["lag"]) == ("running", run.pid, 0)
        found = json.loads(batch("status", file, "--json").stdout)
        assert found["batches"] >= 3
        assert found["recordsPerSecond"] > 0
        rows = scene.rows("SELECT topic, partition, upto FROM tidegate_partitions ORDER BY partition")
        assert [(one["topic"], one["partition"], one["upto"]) for one in found["partitions"]] == rows
        for url, text in ((f"{found['metrics']}/metrics", "tidegate_"), (found["ui"], "Spark")):
            with urllib.request.urlopen(url, timeout=20) as answer:
                assert text in answer.read().decode()
        assert listed["run"] in batch("status", file, listed["run"]).stdout
        stopped = batch("stop", file)
        output, errors = run.communicate(timeout=60)
    assert (stopped.exit_code, run.returncode) == (0, 0), errors
    assert f"run {listed['run']} stopped: {listed['batches']} micro-batches, 1000 records read" in stopped.stdout
    assert json.loads(output)["outcome"] == "stopped"
    check(scene)
    assert [(one["state"], one["alive"]) for one in runs(file)] == [("stopped", False)]
    again = batch("stop", file)
    assert (again.exit_code, f"no run to stop: {listed['run']} is stopped" in again.stderr) == (1, True)


def test_a_micro_batch_that_never_ends(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    """A run gives it up with a second Ctrl-C, as it does after `drainTimeout`: it has stopped like any other, with
    exit code 0, and nothing of it, and no process, is left."""
    scene, asked = batch_scene(make_scene), tmp_path / "asked"
    scene.pipeline |= {"handlers": [{"call": "tests.handlers:say_and_block"}], "worker": {"drainTimeout": "1 hour"}}
    scene.feed(events(Random(1), 10))
    with started(scene, tmp_path, TIDEGATE_TEST_ASKED=str(asked)) as (file, run):
        wait_until(lambda: run.poll() is not None or asked.exists(), 200, "a handler is asked")
        children = psutil.Process(run.pid).children(recursive=True)
        os.killpg(run.pid, signal.SIGINT)
        wait_until(lambda: runs(file)[0]["state"] == "stopping", 30, "the run has heard it")
        os.killpg(run.pid, signal.SIGINT)
        output, errors = run.communicate(timeout=60)
    document = json.loads(output)
    assert (run.returncode, document["outcome"], document["error"], document["read"]) == (0, "stopped", None, 0), errors
    assert "batch.cancelling" in errors
    assert "Traceback" not in errors
    wait_until(lambda: not any(map(alive, children)), 30, "nothing of Spark is left")
    assert [one["state"] for one in runs(file)] == ["stopped"]


def test_a_run_that_was_killed_is_gone(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    """Ten seconds after its last beat; whoever wants to stop it is told so, at once or while waiting for its end. Without
    `--ui` it had no pages of Spark's."""
    scene = batch_scene(make_scene)
    with started(scene, tmp_path) as (file, run):
        before = batch("stop", file)
        assert (before.exit_code, "no run to stop" in before.stderr) == (1, True)
        wait_until(lambda: run.poll() is not None or len(runs(file)) == 1, 100, "the run's row")
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    set_age(scene, -600)
    assert batch("stop", file, "--no-wait").exit_code == 0, "nobody can know yet"
    set_age(scene, 9)
    waited = batch("stop", file)
    assert (waited.exit_code, "is gone: it has said nothing for 1" in waited.stderr) == (1, True)
    [listed] = runs(file)
    assert (listed["state"], listed["alive"], listed["ui"]) == ("gone", False, None)
    for arguments in ((), (listed["run"],)):
        assert batch("stop", file, *arguments).exit_code == 1
    wrong = batch("status", file, "nonsense")
    assert (wrong.exit_code, f"expected: {listed['run']}" in wrong.stderr) == (2, True)
