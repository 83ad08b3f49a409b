"""Spark for tests: the session of a test run, and runs of the second engine on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession

from batch.options import Options, Trigger
from batch.report import Report
from batch.run import BatchRun
from batch.session import spark_session
from batch.sink import Commit
from tests.scene import Scene, assert_same
from tidegate.config.pipeline import Pipeline
from tidegate.errors import DependencyError


@contextmanager
def session(directory: Path) -> Iterator[SparkSession]:
    """A session on two cores."""
    directory.mkdir(parents=True, exist_ok=True)
    with spark_session("tidegate-tests", directory, "local[2]") as started:
        yield started


class Quiet:
    """A watch that remembers. `lags`: what was left after each micro-batch; `waits`: what was waited for."""

    def __init__(self) -> None:
        self.lags: list[int | None] = []
        self.waits: list[DependencyError] = []

    def starting(self, what: str) -> None:
        """Nothing to remember."""

    def committed(self, report: Report, commit: Commit, lag: int | None) -> None:
        self.lags.append(lag)

    def published(self, sink: str, results: Mapping[str, int]) -> None:
        """Nothing to remember."""

    def timed_out(self, windows: Mapping[str, int]) -> None: ...

    def waiting(self, error: DependencyError, seconds: float) -> None:
        self.waits.append(error)


def batch_run(spark: SparkSession, document: dict[str, Any], watch: Quiet | None = None, **options: Any) -> BatchRun:
    """A run of this pipeline on the session, not yet begun. `options`: as on the command line."""
    given = Options(Trigger.parse(options.pop("trigger", "availableNow")), **options)
    # As a file has it, for tests that run a worker or another process on it too: there names are sorted.
    pipeline = Pipeline.model_validate(yaml.safe_load(yaml.safe_dump(document)))
    return BatchRun(pipeline, given, watch or Quiet(), open_session=lambda name, scratch, master: nullcontext(spark))


def run_batch(spark: SparkSession, document: dict[str, Any], **options: Any) -> Report:
    """Run it to its end."""
    return batch_run(spark, document, **options).run()


def batch_scene(make_scene: Callable[..., Scene], **options: Any) -> Scene:
    """A scene whose results go to PostgreSQL alone, as a batch run needs it."""
    scene = make_scene(**options)
    scene.pipeline["sinks"] = [sink for sink in scene.pipeline["sinks"] if sink["type"] == "postgres"]
    return scene


def check(scene: Scene, *, repeats: bool = False, engines: int = 1) -> int:
    """The database, the dead letters and the late records are the truth, and results on Kafka if there is such a sink. With
    `repeats` a record may be in its topic more than once, under one id; returns how many are. `engines`: that wrote results."""
    truth = scene.truth()
    scene.check_database(truth)
    if any(sink["type"] == "kafka" for sink in scene.pipeline["sinks"]):
        for name in truth.aggregates:
            scene.check_results(truth, name, final=False, engines=engines)
    if not repeats:
        scene.check_dead_letters(truth)
        scene.check_late(truth)
        return 0
    letters = [message.header("tidegate.dlq.id") for message in scene.read(".dlq")]
    assert_same("dead letters", {f"{scene.topic}-{p}-{o}" for p, o in truth.dead_letters()}, set(letters))
    late = [message.header("tidegate.late.id") for message in scene.read(".late")]
    expected = {f"{scene.topic}-{p}-{o}" for p, o in truth.late()}
    expected |= {f"{scene.topic}-{p}-{o}-event_time" for p, o in truth.partly_late()}
    assert_same("late records", expected, set(late))
    return len(letters) - len(set(letters)) + len(late) - len(set(late))
