"""SIGKILL in the middle of backfills: run again, they give the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.contract.late_scene import LateScene
from tests.contract.same_numbers_log import PIPELINE, Truth, make_log
from tests.contract.test_same_numbers import same_rows
from tests.harness import ROOT

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(300)]


def run(file: Path, random: Random | None, *options: str) -> str:
    """The command as a process of its own; with `random` it is killed some time into one of its phases. What it printed."""
    command = [sys.executable, "-m", "tidegate.cli.main", "batch", "backfill", str(file), *options, "--json"]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        if random is not None:
            phase = random.randrange(1, 6)
            for line in process.stderr:
                phase -= "backfill.phase" in line
                if phase == 0:
                    break
            time.sleep(random.random() * 0.2)
            os.killpg(process.pid, signal.SIGKILL)
            return ""
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def test_kills_of_backfills(
    kafka: KafkaTopics, postgres: Database, tmp_path: Path, pytestconfig: pytest.Config, seed: int
) -> None:
    """Killed in the middle of reading, amending, recomputing, comparing and promoting; the run that is let live amends what
    is left, and the promotion is whole or not at all."""
    random, kills = Random(seed), 20 if pytestconfig.getoption("--chaos") == "long" else 2
    logs, meant = make_log(2000)
    settings = {"dedupe": None, "aggregations": PIPELINE["aggregations"][2:]}
    with closing(LateScene(kafka, postgres.url, logs, **settings)) as scene:
        scene.read()
        file = tmp_path / "pipeline.yaml"
        file.write_text(yaml.safe_dump(scene.document, sort_keys=False))
        for _ in range(kills):
            run(file, random, "--late")
        run(file, None, "--late")
        truth = Truth([replace(one, id=None) for one in meant])
        same_rows(scene.results(), {"overall": truth.rows("overall", late=True)})
        assert scene.counts()[:2] == (0, 0)
        damaged = scene.query("UPDATE overall_partials SET n__n = n__n + 1 WHERE partition = 1 RETURNING 1")
        span = ["--from", "2000-01-01", "--to", "2100-01-01"]
        for _ in range(kills):
            run(file, random, *span, "--promote")
        (found,) = json.loads(run(file, None, *span, "--promote"))["aggregations"]
        assert found["windows"]["promoted"] <= len(damaged)
        assert found["windows"]["changed"] == 0
        same_rows(scene.results(), {"overall": truth.rows("overall", late=True)})
