"""`tidegate batch run` on a cluster of Spark's own, with a master and a worker, by spark-submit and with `--master`."""

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

import pyspark
import pytest
import yaml

from batch import session
from tests.harness import ROOT, free_port
from tests.providers.spark import batch_scene, check
from tests.scene import Scene, events
from tidegate.errors import ConfigError
from tidegate.local import jars
from tidegate.local.java import find_java

HOME = Path(pyspark.__file__).parent
_RUN = "from tidegate.cli.main import run\nrun()\n"


def environment() -> dict[str, str]:
    java = find_java().resolve().parent.parent
    own = {
        "SPARK_HOME": str(HOME),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "JAVA_HOME": str(java),
        "PYSPARK_PYTHON": sys.executable,
    }
    return {**os.environ, **own, "PYTHONPATH": str(ROOT)}


@contextmanager
def cluster(directory: Path) -> Iterator[str]:
    """A standalone master with one worker of two cores; gives its address."""
    address = f"spark://127.0.0.1:{(port := free_port())}"
    local = ["-h", "127.0.0.1", "--webui-port", "0"]
    commands = (
        ["org.apache.spark.deploy.master.Master", *local, "-p", str(port)],
        ["org.apache.spark.deploy.worker.Worker", *local, "-c", "2", "-m", "1g", "-d", str(directory), address],
    )
    processes = []
    try:
        for number, command in enumerate(commands):
            with (directory / f"{number}.log").open("wb") as log:
                started = subprocess.Popen(
                    [str(HOME / "bin" / "spark-class"), *command],
                    env={**environment(), "SPARK_DAEMON_MEMORY": "256m"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            processes.append(started)
        yield address
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def submit(folder: Path, master: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`batch run --json` of the folder's pipeline, by spark-submit."""
    submitting = [str(HOME / "bin" / "spark-submit"), "--master", master, "--conf", "spark.driver.host=127.0.0.1"]
    return subprocess.run(
        [*submitting, *options, "run.py", "batch", "run", "pipeline.yaml", "--json"],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def with_master(folder: Path, master: str) -> subprocess.CompletedProcess[str]:
    """The same by the command itself."""
    return subprocess.run(
        [sys.executable, "-m", "tidegate.cli.main", "batch", "run", "pipeline.yaml", "--master", master, "--json"],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.spark
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("spark_jars")
def test_a_pipeline_runs_on_a_cluster(make_scene: Callable[..., Scene], tmp_path: Path, seed: int) -> None:
    """Executors are other processes than the driver, and read Kafka themselves; the answer is the truth, by spark-submit and then
    with `--master`. Without Spark's Kafka jars spark-submit reads nothing, and it is said how to give them."""
    scene, random = batch_scene(make_scene), Random(seed)
    scene.feed(events(random, 600))
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(scene.pipeline))
    (tmp_path / "run.py").write_text(_RUN)
    (spark := tmp_path / "spark").mkdir()
    without = submit(tmp_path, "local[1]")
    assert without.returncode == 1
    assert '--jars "$(tidegate jars --spark-jars)"' in without.stdout + without.stderr
    with cluster(spark) as address:
        submitted = submit(tmp_path, address, "--jars", jars.listed("spark"), "--conf", "spark.executor.memory=512m")
        scene.feed(events(random, 100, first=600))
        told = with_master(tmp_path, address)
    logs = "\n".join(log.read_text()[-3000:] for log in spark.glob("*.log"))
    assert submitted.returncode == 0, submitted.stderr[-3000:] + logs
    assert "Executor added" in submitted.stderr
    document = submitted.stdout[submitted.stdout.index("\n{") :]  # spark-submit sends standard error the same way
    assert json.loads(document)["read"] == 600
    assert told.returncode == 0, told.stderr[-3000:]
    assert (spark / "0.log").read_text().count("Registered app") == 2
    assert json.loads(told.stdout)["read"] == 100
    check(scene)


def test_a_master_that_spark_submit_cannot_heed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The JVM is there already, with the master that spark-submit was told."""
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    with (
        pytest.raises(ConfigError, match="give --master to spark-submit") as caught,
        session.spark_session("t", tmp_path, "local[2]"),
    ):
        pass
    assert (caught.value.field, caught.value.value) == ("--master", "local[2]")
