"""The pipeline's page: its plan, and what store and Kafka know of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlq.service import connect_index
from tests.console_scene import NOW, TOKENS, Scene, scene
from tidegate.clock import ManualClock
from tidegate.config.pipeline import Pipeline
from tidegate.diagram import draw
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import compile_plan
from tidegate.store import open_store
from tidegate.store.base import StoreBatch

TP = TopicPartition("flights", 0)
HIGH_WATER = 1_357_002_000_000  # 2013-01-01T01:00:00Z


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Scene]:
    """A console over a pipeline with a store, in which a worker has come to offset 99. There is no Kafka, and no index."""
    pipeline = Pipeline.model_validate(
        {
            "pipelineId": "flights",
            "kafka": {"bootstrapServers": "127.0.0.1:1"},
            "source": {"topics": ["flights"]},
            "schema": [{"name": "at", "type": "timestamp", "unit": "ms"}],
            "rules": [{"name": "known", "type": "notNull", "column": "at"}],
            "eventTime": {"column": "at", "delay": "1 minute"},
            "aggregations": [{"name": "hourly", "window": {"size": "1 hour"}, "measures": {"n": "count"}}],
            "sinks": [{"type": "sqlite", "path": str(tmp_path / "store.db")}],
            "deadLetters": {"index": f"sqlite:///{tmp_path / 'index.sqlite'}"},
        }
    )
    store = open_store(compile_plan(pipeline), pipeline.sinks[0])  # type: ignore[arg-type]  # the pipeline of this test has a database's sink
    store.prepare()
    row = store.claim([TP], "worker-1")[TP]
    store.write(StoreBatch(TP, row.epoch, -1, PartitionState(99, HIGH_WATER, None, Ledger(100, 90, 4, 6))))
    store.close()
    with connect_index(pipeline, clock=ManualClock(NOW)) as index:
        yield Scene(index)


def test_the_plan_is_what_check_prints(stored: Scene) -> None:
    """Every line of `tidegate check`'s diagram is on the page and in the API's answer, in the same order."""
    document = stored.client().get("/api/pipeline").json()
    drawn = draw(stored.pipeline, compile_plan(stored.pipeline))
    at = 0
    for stage in document["stages"]:
        for part in [stage["stage"], *stage["does"]]:
            assert (at := drawn.index(part.strip(), at)) >= 0
    page = stored.browser().get("/pipeline").text
    assert "known: at is not null, else error: deadLetter" in page
    assert page.index("<h3>validate</h3>") < page.index("<h3>commit</h3>")
    assert "late records; dead letters" in page


def test_without_kafka_the_store_s_counters_are_shown(stored: Scene) -> None:
    """What the store knows (applied offset, watermark, owner) stands there; what only Kafka knows is unknown, with the reason."""
    document = stored.client().get("/api/pipeline").json()
    (row,) = document["partitions"]
    assert (row["topic"], row["upto"], row["owner"], row["watermark"]) == (
        "flights", 99, "worker-1", "2013-01-01T00:59:00.000Z",
    )  # fmt: skip
    assert (row["lag"], row["committed"], document["group"]) == (None, None, None)
    assert "127.0.0.1:1" in document["problems"][0]
    page = stored.browser().get("/pipeline").text
    assert "worker-1" in page
    assert "2013-01-01 00:59:00" in page
    assert "Kafka does not say" in page


def test_a_topic_that_has_left_the_file(stored: Scene) -> None:
    """Its partitions say so, and the pipeline's watermark is not theirs."""
    source = stored.pipeline.source
    assert source is not None
    changed = source.model_copy(update={"topics": ("others",)})
    stored.app.state.live.pipeline = stored.pipeline.model_copy(update={"source": changed})
    (row,) = stored.client().get("/api/pipeline").json()["partitions"]
    assert (row["upto"], row["note"]) == (99, "topic not in the file")
    page = stored.browser().get("/pipeline").text
    assert "topic not in the file" in page
    assert "no record with a time yet" in page


def test_without_store_and_kafka_the_plan_is_left(console: Scene) -> None:
    """The page says that nobody knows the partitions, and shows the plan."""
    page = console.browser().get("/pipeline").text
    assert "no store that knows them" in page
    assert "only a store counts them" in page
    assert "JSON to dep_time bigint, distance double" in page
    assert "<tbody" not in page


def test_a_file_without_a_pipeline_says_so(tmp_path: Path) -> None:
    """A pipeline file that only reads others' dead letters names what it lacks."""
    pipeline = Pipeline.model_validate(
        {"pipelineId": "letters", "deadLetters": {"index": f"sqlite:///{tmp_path / 'index.sqlite'}"}}
    )
    with connect_index(pipeline, clock=ManualClock(NOW)) as index:
        opened = Scene(index)
        assert "This file runs no pipeline" in opened.browser().get("/pipeline").text
        assert opened.client().get("/api/pipeline").json()["missing"]


def test_kafka_is_asked_once_for_all_who_look(stored: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a few seconds everybody sees the same answer; after them it is asked again."""
    asked: list[Any] = []
    ask = type(stored.app.state.live)._ask
    monkeypatch.setattr("dlq.console.live.Live._ask", lambda live: (asked.append(live), ask(live))[1])
    for _ in range(3):
        stored.browser().get("/pipeline")
    assert len(asked) == 1
    assert isinstance(stored.index.clock, ManualClock)
    stored.index.clock.advance(5)
    stored.client().get("/api/pipeline")
    assert len(asked) == 2


def test_a_viewer_may_look_at_it(tmp_path: Path) -> None:
    """It needs no more than the right to view."""
    with scene(tmp_path, tokens=True) as opened:
        assert opened.client(TOKENS["viewer"]).get("/api/pipeline").status_code == 200
