"""`tidegate batch backfill` as people run it: beside a real worker, and as a process that is killed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.harness import running, wait_until
from tests.scene import Scene, compare, events, ms
from tests.truth import MEASURES
from tidegate.cli.main import app

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]


def check_all(scene: Scene) -> None:
    """The views are those of all records, late or not."""
    truth = scene.truth()
    for name, aggregate in truth.aggregates.items():
        keys = ["window_start", "window_end", *aggregate.group]
        columns = ", ".join(f'"{column}"' for column in (*keys, *MEASURES))
        found = {
            (ms(row[0]), ms(row[1]), *row[2 : len(keys)]): row[len(keys) :]
            for row in scene.rows(f"SELECT {columns} FROM {name}")
        }
        compare(f"view {name}", truth.results(name, late=True), found)


def test_beside_a_worker(make_scene: Callable[..., Scene], tmp_path: Path, seed: int) -> None:
    """Backfills run one after the other while a worker finds more late records in the same windows: neither waits for the
    other for long, is fenced, or loses or doubles a record. The ledger balances, and `status` says that nothing is missing."""
    scene, random = make_scene(), Random(seed)
    scene.feed(events(random, 2000))
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(scene.pipeline))
    worker, over, documents = scene.worker(), threading.Event(), list[dict[str, Any]]()

    def backfill() -> None:
        done = CliRunner().invoke(app, ["batch", "backfill", str(file), "--late", "--json"])
        assert done.exit_code == 0, done.output
        documents.append(json.loads(done.stdout))

    def load() -> None:
        number = 2000
        while not over.is_set():
            scene.feed(events(random, 200, first=number))
            number += 200
            time.sleep(0.2)

    loading = threading.Thread(target=load)
    with running(worker):
        wait_until(lambda: scene.applied() >= 1000, 60, f"some are applied\n{worker.tail()}")
        loading.start()
        try:
            while sum(one["recordsAdded"] > 0 for one in documents) < 3:
                backfill()
        finally:
            over.set()
            loading.join()
        wait_until(lambda: scene.applied() == len(scene.produced), 60, f"all applied\n{worker.tail()}")
        scene.check_dead_letters(scene.truth())
        assert worker.stop() == 0
        assert worker.tail(10_000).count("fenced") == 0
    backfill()
    check_all(scene)
    assert sum(one["recordsAdded"] for one in documents) == len(scene.truth().late() | scene.truth().partly_late())
    assert "the worker wrote them" in documents[-1]["notes"][0]
    status = json.loads(CliRunner().invoke(app, ["status", str(file), "--json"]).stdout)
    late = [(row["lateMissing"], row["lateRefused"]) for row in status["partitions"]]
    assert late == [(0, 0)] * 3
    assert sum(row["lateAmended"] for row in status["partitions"]) == sum(scene.truth().late_windows().values())
    assert CliRunner().invoke(app, ["ledger", str(file)]).exit_code == 0
