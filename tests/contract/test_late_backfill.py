"""`tidegate batch backfill --late`: afterwards results are those of all records ever read, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from batch.backfill import gather
from batch.backfill import late as late_module
from batch.backfill.ranges import KafkaRange
from tests.contract import late_handlers
from tests.contract.late_scene import LateScene
from tests.contract.same_numbers_log import PIPELINE, Truth, make_log
from tests.contract.test_same_numbers import same_rows
from tests.reference import Record
from tidegate.errors import StoreFenced, StoreUnavailable

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.kafka]
Make = Callable[..., LateScene]
RECORDS = 3000
FEW = [  # those that merge each in a way of its own
    {**a, "measures": {name: a["measures"][name] for name in ("n", "sum_fare", "avg_price", "users", "last_total")}}
    for a in PIPELINE["aggregations"]
    if a["name"] != "overall"
]


@cache
def log_of(records: int) -> tuple[list[list[Record]], Truth]:
    logs, meant = make_log(records)
    return logs, Truth(meant)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both databases."""
    return str(tmp_path / "store.db") if request.param == "sqlite" else request.getfixturevalue("postgres").url


@pytest.fixture
def make(kafka: KafkaTopics, tmp_path: Path) -> Iterator[Make]:
    """`make(url=…, **settings)`: a scene; without `url` on SQLite, without `aggregations` with FEW."""
    scenes: list[LateScene] = []

    def make_(url: str | None = None, **settings: Any) -> LateScene:
        given = {"aggregations": FEW} | settings
        scenes.append(LateScene(kafka, url or str(tmp_path / "store.db"), log_of(RECORDS)[0], **given))
        return scenes[-1]

    yield make_
    for made in scenes:
        made.close()


def check(scene: LateScene, *, late: bool = True) -> None:
    """Every row of every view is that of plain SQL over all valid records, late or not; and no window misses any."""
    truth, found = log_of(RECORDS)[1], scene.results()
    for name, rows in found.items():
        expected = truth.rows(name, late=late)
        measures = next(iter(rows.values()))
        same_rows(found, {name: {key: {m: row[m] for m in measures} for key, row in expected.items()}})
    if late:
        assert scene.counts()[:2] == (0, 0)


def test_results_become_those_of_all_records(make: Make, url: str) -> None:
    """All measures, tumbling and hopping windows, records that are late for all their windows or for some; revisions rise;
    a second run changes nothing; the partition rows, which are the worker's, are not touched."""
    scene = make(url, aggregations=PIPELINE["aggregations"])
    scene.read(again=True)  # what Spark writes twice after a crash counts once
    truth = log_of(RECORDS)[1]
    check(scene, late=False)
    missing, before = scene.counts()[0], scene.everything()
    revisions = sum(row[0] for row in scene.query("SELECT revision FROM overall"))
    report = scene.backfill()
    check(scene)
    document = report.document()
    assert (document["complete"], document["missingBefore"], document["missingAfter"]) == (True, missing, 0)
    late = truth.late()
    assert document["recordsAdded"] == len(late) > 300
    assert {partial for _, _, partial in late} == {True, False}
    assert {row["source"] for row in document["partitions"]} == {"late", None}
    assert scene.counts() == (0, 0, missing)
    assert sum(row[0] for row in scene.query("SELECT revision FROM overall")) > revisions
    after = scene.everything()
    assert after[0] == before[0]
    assert scene.backfill().document()["recordsAdded"] == 0
    assert scene.told.phases == ["amending"]
    assert scene.everything() == after


@pytest.mark.parametrize(
    ("strategy", "from_source", "found_in"),
    [("drop", False, "source"), ("sendToDLQ", False, "late"), ("separateStream", True, "source")],
)
def test_whatever_became_of_late_records(make: Make, strategy: str, from_source: bool, found_in: str) -> None:
    """Dropped ones are found again in the source, whose log decides who is late; dead-lettered ones among the dead letters.
    `--source kafka` looks in the source whatever there is."""
    scene = make(lateData={"strategy": strategy})
    scene.read()
    log = KafkaRange.of(scene.pipeline, "backfill") if from_source else None
    report = scene.backfill(source=log)
    check(scene)
    assert {row["source"] for row in report.document()["partitions"]} == {found_in, None}


def test_records_that_the_late_topic_has_lost(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken from the source; if that has lost its beginning, nothing of the partition is written, and it is said."""
    monkeypatch.setattr(gather, "_SETTLE", 0.4)
    scene = make()
    scene.read()
    admin = AdminClient({"bootstrap.servers": scene.servers})

    def lose(topic: str, partition: int, offset: int) -> None:
        for done in admin.delete_records([KafkaPartition(topic, partition, offset)]).values():
            done.result(30)

    lose(f"{scene.pipeline.pipeline_id}.late", 0, -1)
    lost = scene.tps[0]
    lose(lost.topic, lost.partition, 5)
    first, second, third, _ = scene.backfill().document()["partitions"]
    assert (first["added"], first["source"], "have expired" in first["problem"]) == (0, None, True)
    assert {one["source"] for one in (second, third)} == {"source"}
    missing = "SELECT coalesce(sum(missing), 0) FROM tidegate_late_windows WHERE partition"
    assert scene.query(f"{missing} = 0") > [(0,)]
    assert scene.query(f"{missing} > 0") == [(0,)]


def test_a_reader_that_goes_on_meanwhile(make: Make, url: str) -> None:
    """What it finds late after the backfill has looked is neither lost nor doubled: the next backfill adds it."""
    scene = make(url)
    scene.read(0.5)
    scene.told.on_phase = lambda what: scene.read(0.8) if what == "amending" else None
    first = scene.backfill()
    assert first.document()["recordsAdded"] > 0
    assert scene.counts()[0] > 0, "the reader found more"
    scene.told.on_phase = lambda what: None
    scene.read()
    assert scene.backfill().document()["recordsAdded"] > 0
    check(scene)


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.postgres
def test_killed_between_any_two_transactions(make: Make, postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is killed after its first transaction, and in the middle of its second; the one that is let live is exact."""
    monkeypatch.setattr(late_module, "_STRETCH", 100)
    scene = make(postgres.url)
    scene.read()
    written: list[int] = []

    def count(records: int) -> None:
        if scene.told.phases[-1] == "amending":
            written.append(records)
            if len(written) in (1, 3, 4):
                raise Killed

    scene.told.on_advance = count
    for _ in range(3):
        with pytest.raises(Killed):
            scene.backfill()
    assert scene.backfill().complete
    assert sum(written) == len(log_of(RECORDS)[1].late()), "no stretch was written twice"
    check(scene)


def test_an_answer_that_was_lost(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database commits and the connection breaks before it says so: tried again, nothing is added twice."""
    from tidegate.store.sqlite import SqliteStore

    scene, lost, real = make(), [True], SqliteStore.amend
    scene.read()

    def amend(self: Any, *amendments: Any) -> None:
        real(self, *amendments)
        if lost.pop() if lost else False:
            raise StoreUnavailable("the connection broke")

    monkeypatch.setattr(SqliteStore, "amend", amend)
    assert scene.backfill().complete
    assert lost == []
    check(scene)


def test_two_backfills_at_once(make: Make, url: str) -> None:
    """Both have looked before either writes: the second is fenced, and nothing is added twice."""
    scene = make(url)
    scene.read()

    def other(what: str) -> None:
        if what == "amending":
            scene.told.on_phase = lambda what: None
            scene.backfill()

    scene.told.on_phase = other
    with pytest.raises(StoreFenced, match="another backfill"):
        scene.backfill()
    check(scene)


@pytest.mark.postgres
def test_records_that_cannot_be_added(make: Make, postgres: Database) -> None:
    """What the database or a handler refuses stays missing, is counted as refused and named; all others are added."""
    by_user = [{**FEW[0], "groupBy": ["user"], "measures": {"n": "count"}}]
    scene = make(postgres.url, handlers=[{"call": "tests.contract.late_handlers:choose"}], aggregations=by_user)
    scene.read()
    before = scene.query("SELECT sum(records) FROM by_key")[0][0]
    late_handlers.refusing.set()
    try:
        report = scene.backfill().document()
    finally:
        late_handlers.refusing.clear()
    assert not report["complete"]
    assert min(report["recordsAdded"], report["recordsRefused"], report["recordsFiltered"]) > 10
    assert {(one["stage"], one["errorType"]) for one in report["refused"]} == {
        ("handle", "ValueError"), ("sink", "SinkRefused"),
    }  # fmt: skip
    assert scene.query("SELECT sum(records) FROM by_key")[0][0] == before + report["recordsAdded"]
    missing, refused, amended = scene.counts()
    assert missing == refused == report["recordsRefused"]
    assert amended == report["recordsAdded"] + report["recordsFiltered"]
    assert scene.backfill().document()["recordsAdded"] == 0, "what was refused is not tried again by itself"
