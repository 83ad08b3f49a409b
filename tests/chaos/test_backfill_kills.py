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
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.contract.engines import Rows
from tests.contract.late_scene import LateScene
from tests.contract.same_numbers_log import PIPELINE, Truth, make_log
from tests.contract.test_same_numbers import same_rows
from tests.harness import ROOT
from tidegate.config.sinks import PostgresSink
from tidegate.store.published import Published

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

SPAN = ("--from", "2000-01-01", "--to", "2100-01-01")
pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(1200)]


def run(file: Path, random: Random | None, *options: str, phases: int = 5) -> str:
    """The command as a process of its own; with `random` it is killed some time into one of its `phases`, if it is not done
    before. What it printed."""
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
            phase = random.randint(1, phases)
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
    is left, a promotion is whole or not at all, and the ledger stays as it is. A sink that follows gets all of it afterwards."""
    random, kills = Random(seed), 20 if pytestconfig.getoption("--chaos") == "long" else 2
    logs, meant = make_log(2000)
    settings = {"dedupe": None, "aggregations": PIPELINE["aggregations"][2:]}
    with closing(LateScene(kafka, postgres.url, logs, **settings)) as scene:
        scene.read()
        sink = follow(scene, {})
        ledger = scene.query("SELECT * FROM tidegate_partitions ORDER BY partition")
        file = tmp_path / "pipeline.yaml"
        file.write_text(yaml.safe_dump(scene.document, sort_keys=False))
        for _ in range(kills):
            run(file, random, "--late")
        run(file, None, "--late")
        meant_rows = {"overall": Truth([replace(one, id=None) for one in meant]).rows("overall", late=True)}
        same_rows(scene.results(), meant_rows)
        assert scene.counts()[:2] == (0, 0)
        for number in range(kills):
            # First with what there is to compute, then the promotion alone; the first ones may find nothing to do.
            before = damaged(scene)
            if number % 2:
                run(file, None, *SPAN)
                run(file, random, "--promote", phases=1)
            else:
                run(file, random, *SPAN, "--promote")
            assert counts(scene.results()) in (before, counts(meant_rows)), "half a promotion"
        left = damaged(scene)
        (found,) = json.loads(run(file, None, *SPAN, "--promote"))["aggregations"]
        assert 0 < found["windows"]["promoted"] <= len(left)
        assert found["windows"]["changed"] == 0
        same_rows(scene.results(), meant_rows)
        assert scene.query("SELECT * FROM tidegate_partitions ORDER BY partition") == ledger
        shown = "SELECT extract(epoch FROM window_start)::bigint * 1000, n, revision FROM overall"
        assert follow(scene, sink) == {start: (n, revision) for start, n, revision in scene.query(shown)}


def follow(scene: LateScene, before: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """What a sink has after it was given all that it lacks: window → count and revision. `before`: what it had."""
    assert isinstance(scene.sink, PostgresSink)
    with closing(Published(scene.plan, scene.sink)) as published:
        published.prepare()
        has = dict(before)
        while (publication := published.plan("lake", {})) is not None:
            rows = published.results(publication, scene.plan.aggregations[0], "update", None).to_pylist()
            has |= {row["window_start"]: (row["n"], row["revision"]) for row in rows}
            published.done(publication)
    return has


def damaged(scene: LateScene) -> dict[Any, Any]:
    """The counts of all windows, when one more is in those of a partition than the log says."""
    assert scene.query("UPDATE overall_partials SET n__n = n__n + 1 WHERE partition = 1 RETURNING 1")
    return counts(scene.results())


def counts(rows: Rows) -> dict[Any, Any]:
    return {key: row["n"] for key, row in rows["overall"].items()}
