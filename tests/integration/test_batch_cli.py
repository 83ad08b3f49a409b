"""`tidegate batch run` as a process: its end by a signal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from random import Random

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from tests.harness import ROOT, free_port, wait_until
from tests.providers.processes import alive
from tests.providers.spark import batch_scene, check
from tests.scene import Scene, events
from tidegate.cli.main import app


def counted(port: int) -> float:
    """Records whose micro-batch is committed, as the run's metrics have it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(map(float, re.findall(r"^tidegate_records_processed_total\{.*\} (\S+)$", text, re.MULTILINE)))


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.spark
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("spark_jars")
def test_ctrl_c_ends_a_run_between_micro_batches(make_scene: Callable[..., Scene], tmp_path: Path, seed: int) -> None:
    """It shows metrics until then, prints what it has done, exits with 0, and neither JVM nor executor is left; it logs
    what was committed and nothing else."""
    scene = batch_scene(make_scene)
    scene.feed(events(Random(seed), 1000))
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(scene.pipeline))
    port = free_port()
    options = ["--trigger", "processingTime=1 ms", "--max-records", "400", "--metrics-port", str(port), "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli.main", "batch", "run", str(file), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            wait_until(lambda: run.poll() is not None or scene.applied() == 1000, 200, "all applied")
            wait_until(lambda: counted(port) == 1000, 30, "all counted")
            children = psutil.Process(run.pid).children(recursive=True)
            os.killpg(run.pid, signal.SIGINT)  # as a terminal sends it: to the JVM as well
            output, errors = run.communicate(timeout=60)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 0, errors
    document = json.loads(output)
    assert (document["outcome"], document["read"], document["error"]) == ("stopped", 1000, None)
    assert document["batches"] >= 3
    assert sum(row["read"] for row in document["partitions"]) == 1000
    said = [
        line for line in errors.splitlines() if not line.startswith(("NOTE: ", "WARNING: Using incubator"))
    ]  # Java's
    assert [line for line in said if "batch.committed" not in line and "telemetry.listening" not in line] == []
    wait_until(lambda: not any(map(alive, children)), 10, "nothing of Spark is left")
    check(scene)


def test_a_pipeline_that_does_not_fit_is_refused_before_spark_is_imported(tmp_path: Path) -> None:
    """No database, or a trigger that Spark has and a run cannot use: exit code 2, and the field that is wrong."""
    file = tmp_path / "pipeline.yaml"
    document = {
        "pipelineId": "p",
        "source": {"topics": ["t"]},
        "schema": [{"name": "a", "type": "int"}],
        "sinks": [{"type": "kafka"}],
    }
    file.write_text(yaml.safe_dump(document))
    done = CliRunner().invoke(app, ["batch", "run", str(file)])
    assert (done.exit_code, "sinks: a batch run keeps its state beside the results" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["batch", "run", str(file), "--trigger", "continuous=1 second"])
    assert (done.exit_code, "--trigger: Spark's continuous processing" in done.stderr) == (2, True)
