"""`tidegate batch backfill` as people run it: beside a real worker, and as a process that is killed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from batch.archive import write
from batch.backfill import recompute
from tests.contract.late_scene import LateScene
from tests.contract.same_numbers_log import PIPELINE, Truth, make_log
from tests.contract.test_same_numbers import same_rows
from tests.harness import running, wait_until
from tests.scene import Scene, compare, events, ms
from tests.truth import MEASURES
from tidegate.cli.main import app

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database


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


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
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
    (note,) = documents[-1]["notes"]
    assert note.startswith(f"kafka will be given what was amended by `tidegate batch run {file}`")
    status = json.loads(CliRunner().invoke(app, ["status", str(file), "--json"]).stdout)
    late = [(row["lateMissing"], row["lateRefused"]) for row in status["partitions"]]
    assert late == [(0, 0)] * 3
    assert sum(row["lateAmended"] for row in status["partitions"]) == sum(scene.truth().late_windows().values())
    assert CliRunner().invoke(app, ["ledger", str(file)]).exit_code == 0


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
def test_windows_are_computed_anew_in_processes(
    kafka: KafkaTopics, postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command: what differs as JSON, then its promotion, then tables for people that say that all is the same,
    read from an archive this time."""
    monkeypatch.setattr(recompute, "_FEW", 0)
    monkeypatch.setattr(recompute, "SPLIT", 500)
    monkeypatch.setattr(write, "_FEW", 0)
    logs, meant = make_log(2000)
    document = {"dedupe": None, "aggregations": PIPELINE["aggregations"][2:]}
    with closing(LateScene(kafka, postgres.url, logs, **document)) as scene:
        scene.read()
        scene.query("UPDATE overall_partials SET n__n = n__n + 1 WHERE partition = 0 AND lane = 'live' RETURNING 1")
        file = tmp_path / "pipeline.yaml"
        file.write_text(yaml.safe_dump(scene.document, sort_keys=False))

        def backfill(*options: str) -> str:
            done = CliRunner().invoke(app, ["batch", "backfill", str(file), *options])
            assert done.exit_code == 0, done.output
            return done.stdout

        span = ["--from", "2000-01-01", "--to", "2100-01-01T00:00:00+01:00"]
        (found,) = json.loads(backfill(*span, "--json"))["aggregations"]
        assert found["windows"]["differs"] == found["results"]["differing"] > 5
        assert [(one["name"], one["largestChange"]) for one in found["measures"] if one["changed"]] == [("n", 1.0)]
        assert "put in place by" in backfill(*span)
        scene.document["sinks"].append({"type": "kafka"})
        file.write_text(yaml.safe_dump(scene.document, sort_keys=False))
        promoted = json.loads(backfill("--promote", "--json"))
        (found,) = promoted["aggregations"]
        assert found["windows"]["promoted"] > 5
        assert promoted["notes"][0].startswith(f"kafka will be given what was promoted by `tidegate batch run {file}`")
        assert scene.query("SELECT count(*) FROM overall_promoted") == [(found["windows"]["promoted"],)]
        truth = Truth([replace(one, id=None) for one in meant])
        same_rows(scene.results(), {"overall": truth.rows("overall")})
        archive = ["batch", "archive", str(file), "--to", str(tmp_path / "archive")]
        assert json.loads(CliRunner().invoke(app, [*archive, "--json"]).stdout)["records"] == 2000
        assert "0 records in 0 files" in CliRunner().invoke(app, archive).stdout
        assert "put in place by" not in backfill(*span, "--source", str(tmp_path / "archive"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--from: what is to be done"),
        (["--late", "--promote"], "--late: goes alone"),
        (["--from", "2026-01-01"], "--from: what is to be done"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "--to: ends before it begins"),
        (["--from", "yesterday", "--to", "2026-01-01"], "--from: no moment"),
        (["--late", "--source", "tape://1"], "--source: no place for an archive"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: list[str], words: str) -> None:
    """Exit code 2, and which option is wrong."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(PIPELINE))
    done = CliRunner().invoke(app, ["batch", "backfill", str(file), *options])
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr
