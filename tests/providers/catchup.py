"""Catch-ups on the test run's Spark session."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import yaml
from pyspark.sql import SparkSession

from batch.catchup.run import Catchup
from batch.options import Options
from batch.report import Report
from batch.sink import Commit
from tests.providers.spark import Quiet
from tests.scene import Scene
from tidegate.config.pipeline import Pipeline
from tidegate.errors import StoreHeld


class Steps(Quiet):
    """A watch that can hold the catch-up up: `between` is called after each micro-batch."""

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.between, self.held, self.back = between, threading.Event(), threading.Event()
        self.waited_for: list[str] = []

    def held_by_another(self, error: StoreHeld) -> None:
        self.waited_for.append(error.holder)

    def holding(self) -> None:
        self.held.set()

    def committed(self, report: Report, commit: Commit, lag: int | None) -> None:
        super().committed(report, commit, lag)
        self.between()

    def handed_back(self, lag: int | None) -> None:
        self.back.set()


def pipeline_of(scene: Scene) -> Pipeline:
    """As a file has it, for workers run on it too: there names are sorted."""
    return Pipeline.model_validate(yaml.safe_load(yaml.safe_dump(scene.pipeline)))


def catchup(spark: SparkSession, scene: Scene, watch: Steps, *, max_lag: int = 0, **options: Any) -> Catchup:
    """On the test run's session, not yet begun."""
    return Catchup(
        pipeline_of(scene),
        Options(**{"max_records": 700, **options}),
        max_lag,
        watch,
        open_session=lambda name, scratch, master: nullcontext(spark),
    )
