"""`tidegate batch` behind Spark Connect: the driver is a server, and this process has neither Java nor a JVM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import yaml

from tests.harness import ROOT, wait_until
from tests.providers.connect import connect_server
from tests.providers.spark import batch_scene, check
from tests.scene import Scene, events


@contextmanager
def started(folder: Path, remote: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A Python that finds no Java."""
    nowhere = {"JAVA_HOME": str(folder / "nowhere"), "PATH": str(folder / "nowhere")}
    with subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **nowhere, "SPARK_REMOTE": remote, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.spark
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("spark_jars")
def test_catchup_and_run_behind_spark_connect(make_scene: Callable[..., Scene], tmp_path: Path, seed: int) -> None:
    """The answer is the truth, from as few micro-batches as `--max-records` allows; the next run goes on where the one before
    has stopped, until it is told to stop. They log what was committed and nothing else."""
    scene = batch_scene(make_scene)
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(scene.pipeline))
    (spark := tmp_path / "spark").mkdir()
    batch, random = ("-m", "tidegate.cli.main", "batch"), Random(seed)
    with connect_server(spark) as server:
        scene.feed(events(random, 1000))
        server.require_up()
        options = ["pipeline.yaml", "--max-records", "300", "--json"]
        with started(tmp_path, server.address, *batch, "catchup", *options, "--max-lag", "0") as catchup:
            output, errors = catchup.communicate(timeout=200)
        assert catchup.returncode == 0, errors + server.log.read_text()[-3000:]
        document = json.loads(output)
        assert (document["read"], document["batches"], document["rounds"]) == (1000, 4, 1)
        assert len(errors.splitlines()) == 2 + 4  # held, handed back, and each of them
        check(scene)

        scene.feed(events(random, 500, first=1000))
        goes_on = ["--trigger", "processingTime=100 ms"]
        with started(tmp_path, server.address, *batch, "run", *options, *goes_on) as run:
            wait_until(lambda: run.poll() is not None or scene.applied() == 1500, 200, "all applied")
            run.send_signal(signal.SIGINT)
            output, errors = run.communicate(timeout=60)
        assert run.returncode == 0, errors
        document = json.loads(output)
        assert (document["outcome"], document["read"], document["batches"]) == ("stopped", 500, 2)
        assert [line for line in errors.splitlines() if "batch.committed" not in line] == []
        check(scene)


@pytest.mark.slow
def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By its host and port, without the token that the address may have, and with the variable that it came from."""
    code = (
        "from pathlib import Path; from batch import connect, session; connect._RETRIES = {'max_retries': 0}; "
        "session.spark_session('t', Path(), None).__enter__()"
    )
    with started(tmp_path, "sc://127.0.0.1:1/;use_ssl=false;user_id=secret", "-c", code) as process:
        _, errors = process.communicate(timeout=60)
    last = errors.strip().splitlines()[-1]
    expected = (
        "tidegate.errors.StackError: no Spark Connect server answers at 127.0.0.1:1 (SPARK_REMOTE): failed to connect"
    )
    assert last.startswith(expected)
    assert "secret" not in errors
    assert "Connection refused" in last
