"""The watermark of the whole pipeline, wherever it is asked for: the view, what sinks are told, what times out, a worker."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.store_records import DELAY, SIZE, START, Flight, batch_of, flights_plan
from tidegate.clock import ManualClock
from tidegate.config.sinks import PostgresSink, SqliteSink
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.store import open_store
from tidegate.store.published import Published
from tidegate.store.raw import execute, fetch
from tidegate.store.sql import SqlStore
from tidegate.store.watermark import EVERYTHING, watermark_of
from worker.watermarks import NEVER, SourceWatermark, watermark_of_all

pytestmark = pytest.mark.slow

TPS = [TopicPartition("flights", number) for number in range(3)]
PLAN = flights_plan(measures=["flights"], groups=["overall"])
ENDS = [START + n * SIZE for n in range(1, 5)]
LONG = 1000 * SIZE

_moments = st.sampled_from([START, *(end + DELAY + off for end in ENDS[:3] for off in (-1, 0, 1))])
_partitions = st.tuples(st.none() | _moments, st.booleans()).map(lambda p: PartitionState(0, p[0], idle=p[1]))


class Scene:
    """Four windows, of records of the first partition; partition rows are set to what an example says."""

    def __init__(self, url: str) -> None:
        sink = {"type": "postgres", "url": url} if "://" in url else {"type": "sqlite", "path": url}
        self.sink = (PostgresSink if "://" in url else SqliteSink).model_validate(sink)
        store = open_store(PLAN, self.sink, ManualClock())
        assert isinstance(store, SqlStore)
        self.store = store
        store.prepare()
        self.epochs = {tp: row.epoch for tp, row in store.claim(TPS, "run").items()}
        records = [Flight(n, time=end - SIZE) for n, end in enumerate(ENDS)]
        store.write(batch_of(PLAN, TPS[0], records, epoch=self.epochs[TPS[0]]))
        self.published = Published(PLAN, self.sink) if isinstance(self.sink, PostgresSink) else None
        if self.published is not None:
            self.published.prepare()
        self._sinks = count()

    def become(self, states: list[PartitionState]) -> None:
        with self.store._transaction() as connection:
            for tp, state in zip(TPS, states, strict=True):
                high = "NULL" if state.high_water is None else str(state.high_water)
                execute(
                    connection,
                    f"UPDATE tidegate_partitions SET high_water = {high}, idle = {str(state.idle).lower()} "
                    f"WHERE partition = {tp.partition}",
                )
            execute(connection, "DELETE FROM tidegate_timeouts")

    def shown(self) -> list[bool]:
        """Of each window whether the view calls it final."""
        with self.store._transaction(reads=True) as connection:
            rows = fetch(connection, "SELECT final FROM overall ORDER BY window_start")
        return [bool(row[0]) for row in rows]

    def told(self) -> list[bool]:
        """The same, as a sink is told that is new."""
        assert self.published is not None
        publication = self.published.plan(f"sink {next(self._sinks)}", self.epochs)
        assert publication is not None
        table = self.published.results(publication, PLAN.aggregations[0], "complete", None).sort_by("window_start")
        return [bool(final) for final in table["final"].to_pylist()]

    def close(self) -> None:
        self.store.close()
        if self.published is not None:
            self.published.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """Both databases."""
    made = Scene(str(tmp_path / "x.db") if request.param == "sqlite" else request.getfixturevalue("postgres").url)
    yield made
    made.close()


@given(states=st.lists(_partitions, min_size=3, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_who_ask_get_the_same_answer(scene: Scene, states: list[PartitionState]) -> None:
    """The least watermark of the partitions that are not idle: by the view's SQL, by what a sink is told, by what a worker knows
    of the same partitions, and, as far as it is a moment, by what times out. While all are idle all windows are final and none
    times out; while one that is awake has seen nothing, neither."""
    scene.become(states)
    awake = [state.high_water for state in states if not state.idle]
    unknown = None in awake
    final = [not unknown and all(high is not None and end <= high - DELAY for high in awake) for end in ENDS]
    assert scene.shown() == final
    if scene.published is not None:
        assert scene.told() == final
    watermark = watermark_of(states, DELAY)
    assert watermark == watermark_of_all(dict(zip(TPS, map(_as_worker, TPS, states), strict=True)), TPS)
    assert [watermark is not None and end <= watermark for end in ENDS] == final
    done = scene.store.time_out(scene.epochs, LONG)
    expected = None if watermark in (None, EVERYTHING) else watermark - LONG  # type: ignore[operator]  # not None here
    assert (None if done is None else done.upto) == expected


def _as_worker(tp: TopicPartition, state: PartitionState) -> SourceWatermark:
    watermark = NEVER if state.high_water is None else state.high_water - DELAY
    return SourceWatermark(tp.topic, tp.partition, watermark, 0, state.idle)
