"""A run on Spark with a lake behind its database: it has the results, and keeps those of windows that leave the database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from deltalake import DeltaTable

from tests.providers.spark import batch_scene, check, run_batch
from tests.scene import Scene, events

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.spark, pytest.mark.timeout(600),
    pytest.mark.xdist_group("spark"),  # one process, one session
]  # fmt: skip


def test_a_lake_has_the_results_and_keeps_them(
    make_scene: Callable[..., Scene], spark: SparkSession, tmp_path: Path, seed: int
) -> None:
    """After several micro-batches it has a row for each result of the database; much later, with a timeout, old windows leave the
    database and are counted, and stay in the lake."""
    scene, random = batch_scene(make_scene, partitions=2), Random(seed)
    scene.pipeline["sinks"].append({"type": "delta", "path": str(tmp_path / "lake")})
    names = [aggregation["name"] for aggregation in scene.pipeline["aggregations"]]

    def lake(name: str) -> list[tuple[object, ...]]:
        table = DeltaTable(tmp_path / "lake" / name).to_pyarrow_table()
        return sorted(zip(table["window_end"].to_pylist(), table["records"].to_pylist(), strict=True))

    def database(name: str) -> list[tuple[object, ...]]:
        return sorted(scene.rows(f"SELECT window_end, records FROM {name}"))

    scene.feed(events(random, 900))
    first = run_batch(spark, scene.pipeline, max_records=400)
    check(scene)
    assert first.published["delta"] >= sum(len(lake(name)) for name in names)
    assert [lake(name) for name in names] == [database(name) for name in names]

    scene.pipeline["eventTime"] |= {"retention": "1 ms", "stateTimeout": "10 minutes"}
    scene.feed(events(random, 300, first=100_000, bad=False))
    timed_out = run_batch(spark, scene.pipeline).document()["timedOut"]
    upto = scene.rows(
        f"SELECT to_timestamp((min(high_water) - {scene.delay + 600_000}) / 1000.0) FROM tidegate_partitions"
    )
    for name in names:
        kept = lake(name)
        assert database(name) == [row for row in kept if row[0] > upto[0][0]]
        assert timed_out[name] == len({row[0] for row in kept if row[0] <= upto[0][0]}) > 0
