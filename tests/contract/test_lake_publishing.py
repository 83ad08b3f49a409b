"""Lakes behind a real PostgreSQL: what a publisher has given them is what the store has, whatever it was killed in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from batch.claims import Claims
from batch.publish.publisher import Publisher
from batch.publish.targets import publishing
from tests.contract.lake_scene import Lake, Row, stored
from tests.contract.store_records import DELAY, SIZE, START, Flight, batch_of, flights_plan, truth
from tests.contract.test_store import flights
from tidegate.clock import ManualClock
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import PostgresSink
from tidegate.errors import ConfigError, LakeUnavailable, StoreFenced, StoreUnavailable
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.store import open_store
from tidegate.store.published import Published

if TYPE_CHECKING:
    from pathlib import Path

    from tests.providers.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

A, B = TopicPartition("flights", 0), TopicPartition("flights", 1)
KINDS = {
    "newest": ("delta", "upsert"),
    "changes": ("delta", "append"),
    "files": ("parquet", "append"),
    "all": ("parquet", "overwrite"),
}


class Followed:
    """A store, and a lake of each kind behind it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.database = PostgresSink.model_validate({"type": "postgres", "url": url})
        self.lakes = {name: Lake(str(folder / name)) for name in KINDS}
        self.plan = with_sinks(flights_plan(), self.database, self.lakes)
        self.store = open_store(self.plan, self.database, ManualClock())
        self.store.prepare()
        self.epochs = {tp: row.epoch for tp, row in self.store.claim([A, B], "run").items()}
        self.states = {A: PartitionState(), B: PartitionState()}
        self.written: list[Flight] = []
        self.told: list[tuple[str, Mapping[str, int]]] = []

    def write(self, tp: TopicPartition, *records: Flight) -> None:
        batch = batch_of(self.plan, tp, records, before=self.states[tp], epoch=self.epochs[tp])
        self.store.write(batch)
        self.states[tp] = batch.state
        self.written += records

    @contextmanager
    def publisher(self) -> Iterator[Publisher]:
        """Of a new process."""
        claims = cast(Claims, SimpleNamespace(epochs=self.epochs, states=self.states))
        guard = Guard("store", self.plan.pipeline.error_handling)
        with publishing(self.plan, self.database, guard, claims, lambda *told: self.told.append(told)) as publisher:
            assert publisher is not None
            yield publisher

    def catch_up(self) -> None:
        with self.publisher() as publisher:
            publisher.catch_up()

    def again(self) -> None:
        """As after a restore of the database from before there were sinks."""
        with psycopg.connect(self.database.url.get_secret_value()) as connection:
            connection.execute("DELETE FROM tidegate_published")

    def newest(self, name: str, aggregation: AggregationPlan) -> dict[tuple[Any, ...], Row]:
        """Window and group → the row with the largest revision."""
        keys = ["window_start", *(column.name for column in aggregation.group)]
        rows = sorted(self.lakes[name].rows(KINDS[name][0], aggregation), key=lambda row: int(row["revision"]))
        return {tuple(row[key] for key in keys): row for row in rows}


def with_sinks(plan: Plan, database: PostgresSink, lakes: Mapping[str, Lake]) -> Plan:
    sinks = [
        {"type": KINDS[name][0], "name": name, "path": lake.path, "mode": KINDS[name][1]}
        for name, lake in lakes.items()
    ]
    document = {
        "pipelineId": plan.pipeline.pipeline_id,
        "schema": [{"name": "time", "type": "timestamp", "unit": "ms"}],
        "eventTime": {"column": "time", "delay": DELAY},
        "aggregations": [
            {"name": each.name, "window": {"size": SIZE}, "measures": {"n": "count"}} for each in plan.aggregations
        ],
        "sinks": [database.model_dump(by_alias=True), *sinks],
        "errorHandling": {"retry": {"maxAttempts": 2, "initialDelayMs": 1}},
    }
    return replace(plan, pipeline=Pipeline.model_validate(document))


@pytest.fixture
def followed(postgres: Database, tmp_path: Path) -> Iterator[Followed]:
    made = Followed(postgres.url, tmp_path)
    yield made
    made.store.close()


def test_lakes_have_what_the_store_has(followed: Followed) -> None:
    """All results at first, what has changed later, and then nothing; every measure is as plain Python has it."""
    followed.write(A, *flights(60, seed=1))
    followed.write(B, *flights(60, seed=2, first=20))
    followed.catch_up()
    followed.write(A, *[replace(flight, offset=flight.offset + 1000) for flight in flights(30, seed=3)])
    followed.catch_up()
    for aggregation in followed.plan.aggregations:
        wanted = truth(aggregation, followed.written)
        for name in KINDS:
            found = followed.newest(name, aggregation)
            assert found.keys() == {tuple(stored({"window_start": k[0]}).values()) + k[1:] for k in wanted}, name
            for key, measures in wanted.items():
                row = found[(*stored({"window_start": key[0]}).values(), *key[1:])]
                for measure, value in stored(measures).items():
                    near = isinstance(value, float) and math.isclose(row[measure], value, rel_tol=1e-9)
                    assert near or row[measure] == value, (name, measure)
    before = {name: lake.files() for name, lake in followed.lakes.items()}
    followed.catch_up()
    assert {name: lake.files() for name, lake in followed.lakes.items()} == before


def test_a_run_that_another_has_overtaken(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told by whom, and not that the table is to be moved away: it was paused between its plan and its write, and the table
    has what came after. With nobody else about, the table is another database's."""
    followed.write(A, Flight(1))
    results = Published.results

    def late(*what: Any) -> Any:
        monkeypatch.setattr(Published, "results", results)
        found = results(*what)
        followed.epochs = {tp: row.epoch for tp, row in followed.store.claim([A, B], "the other").items()}
        followed.catch_up()
        followed.write(A, Flight(2))
        followed.catch_up()
        return found

    monkeypatch.setattr(Published, "results", late)
    with pytest.raises(StoreFenced, match=r"flights-0: the other has the partition.*nothing needs to be done"):
        followed.catch_up()
    before = {name: lake.files() for name, lake in followed.lakes.items()}
    followed.catch_up()
    assert {name: lake.files() for name, lake in followed.lakes.items()} == before
    followed.again()
    with pytest.raises(ConfigError, match="is at 1: it is another database, or has gone back"):
        followed.catch_up()


def test_a_kill_between_a_lake_and_the_store(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lake has the publication, the store does not know it: it comes again under its version and changes no file."""
    followed.write(A, Flight(1), Flight(2, origin="JFK"))
    with monkeypatch.context() as patch:
        patch.setattr(Published, "done", _killed)
        with pytest.raises(StoreUnavailable):
            followed.catch_up()
    before = followed.lakes["newest"].files()
    assert before
    followed.catch_up()
    assert followed.lakes["newest"].files() == before
    followed.write(A, Flight(3, time=START + 1))
    followed.catch_up()
    (overall,) = [each for each in followed.plan.aggregations if each.name == "overall"]
    assert {name: [row["flights"] for row in followed.newest(name, overall).values()] for name in KINDS} == {
        "newest": [3], "changes": [3], "files": [3], "all": [3],
    }  # fmt: skip
    assert [row["flights"] for row in followed.lakes["changes"].rows("delta", overall)] == [2, 3]


def _killed(*_: object) -> None:
    raise StoreUnavailable("killed before it was noted")


def test_a_race_with_another_writer_of_the_table_is_retried(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the guard of the sink: the publication is there once."""
    from batch.publish.delta import DeltaTarget

    commit, lost = DeltaTarget._commit, []

    def once(self: DeltaTarget, *args: Any) -> None:
        if not lost:
            lost.append(self.name)
            raise LakeUnavailable("another writer was faster")
        commit(self, *args)

    monkeypatch.setattr(DeltaTarget, "_commit", once)
    followed.write(A, Flight(1))
    followed.catch_up()
    assert lost == ["newest"]
    assert [len(followed.newest("newest", aggregation)) for aggregation in followed.plan.aggregations] == [1, 1, 1]
