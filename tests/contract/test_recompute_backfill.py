"""`tidegate batch backfill --from --to`: windows computed anew are what they would be had the file always been as it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from batch.backfill.diff_report import DiffReport
from batch.backfill.pool import Here
from batch.backfill.ranges import KafkaRange
from batch.backfill.recompute import RecomputeBackfill
from tests.contract import late_handlers
from tests.contract.late_scene import LateScene, Told
from tests.contract.same_numbers_log import HOP_SIZE, PIPELINE, START, Meant, Truth, make_log
from tests.contract.test_same_numbers import same_rows
from tests.reference import Record
from tidegate.config.kafka import Kafka
from tidegate.config.pipeline import Pipeline
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.record import TopicPartition
from tidegate.store.shadow import Range

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]
Make = Callable[..., LateScene]
ALL = Range(0, 2 * START)
FEW = [
    {**a, "measures": {name: a["measures"][name] for name in ("n", "sum_fare", "avg_price", "users", "last_total")}}
    for a in PIPELINE["aggregations"]
    if a["name"] != "overall"
]
NO_DEDUPE: dict[str, Any] = {"dedupe": None, "aggregations": FEW}


@cache
def log_of(records: int = 3000) -> tuple[list[list[Record]], list[Meant]]:
    return make_log(records)


def truth_of(change: Callable[[Meant], Meant]) -> Truth:
    """The truth for records that mean something else."""
    return Truth([change(one) for one in log_of()[1]])


def without_id(one: Meant) -> Meant:
    """As a pipeline that does not dedupe takes it."""
    return replace(one, id=None)


@pytest.fixture
def make(kafka: KafkaTopics, postgres: Database) -> Iterator[Make]:
    scenes: list[LateScene] = []

    def make_(**settings: Any) -> LateScene:
        scenes.append(LateScene(kafka, postgres.url, log_of()[0], **settings))
        return scenes[-1]

    yield make_
    for made in scenes:
        made.close()


def backfill(scene: LateScene, split: int | None = None, **changes: Any) -> RecomputeBackfill:
    """Of the pipeline file with these changes. `split`: in splits of so many records."""
    pipeline = Pipeline.model_validate(scene.document | changes)
    return RecomputeBackfill(pipeline, Told(), split=split, pool=Here())


def windows(report: DiffReport) -> dict[str, int]:
    """State → how many windows of all aggregations."""
    counts: dict[str, int] = {}
    for one in report.document()["aggregations"]:
        for state, count in one["windows"].items():
            counts[state] = counts.get(state, 0) + count
    return {state: count for state, count in counts.items() if count}


def compute(scene: LateScene, span: Range = ALL, **changes: Any) -> DiffReport:
    return DiffReport(scene.pipeline.pipeline_id, *backfill(scene, **changes).compute(span))


def promote(scene: LateScene, **changes: Any) -> DiffReport:
    return DiffReport(scene.pipeline.pipeline_id, *backfill(scene, **changes).promote())


def check(scene: LateScene, truth: Truth, span: Range = ALL) -> None:
    """The rows of windows that start in the span are those of plain SQL."""
    found = scene.results()
    for name, rows in found.items():
        expected = {key: row for key, row in truth.rows(name).items() if span.begin <= key[0] < span.end}
        measures = next(iter(rows.values()))
        mine = {key: row for key, row in rows.items() if span.begin <= key[0] < span.end}
        same_rows({name: mine}, {name: {key: {m: row[m] for m in measures} for key, row in expected.items()}})


def test_splits_give_what_one_reading_gives(make: Make) -> None:
    """The log cut into splits of 400 records, each begun with the high water of those before: no result and no late count
    differs, whether late records had been added or not. The live tables are not touched."""
    scene = make(**NO_DEDUPE)
    scene.read(0.6)
    assert scene.backfill().complete
    scene.read()
    before = scene.everything()
    report = compute(scene, split=400)
    assert windows(report).keys() == {"same"}
    assert windows(report)["same"] > 100
    assert not any(one["replayedRecords"] for one in report.document()["aggregations"])
    assert scene.everything() == before
    assert scene.counts()[0] > 0
    assert scene.counts()[2] > 0


def test_what_was_damaged_is_shown_and_mended(make: Make) -> None:
    """Rows that were changed, deleted or made up; with dedupe. Exactly their windows differ, and after the promotion the
    views are the truth, with higher revisions; a second promotion changes nothing."""
    scene = make()
    scene.read()
    starts = [row[0] for row in scene.query("SELECT DISTINCT window_start FROM overall_partials ORDER BY 1")]
    changed, gone, added = (f"'{starts[index].isoformat()}'" for index in (3, 5, 7))
    revisions = dict(scene.query("SELECT window_start, sum(revision) FROM overall GROUP BY 1"))
    scene.query(f"UPDATE overall_partials SET n__n = n__n + 1 WHERE window_start = {changed} RETURNING 1")
    scene.query(f"DELETE FROM by_key_partials WHERE window_start = {gone} RETURNING 1")
    scene.query(
        f"UPDATE by_key_partials SET k = 'made up' WHERE ctid = (SELECT ctid FROM by_key_partials "
        f"WHERE window_start = {added} LIMIT 1) RETURNING 1"
    )
    report = compute(scene)
    by_name = {one["name"]: one for one in report.document()["aggregations"]}
    assert by_name["overall"]["windows"]["differs"] == 1
    assert (
        by_name["overall"]["samples"][0]["changed"]["n"]["live"]
        > by_name["overall"]["samples"][0]["changed"]["n"]["recomputed"]
    )
    assert {m["name"]: m["changed"] for m in by_name["overall"]["measures"] if m["changed"]} == {"n": 1}
    assert by_name["by_key"]["windows"]["differs"] == 2
    assert by_name["by_key"]["results"]["added"] > 1
    assert by_name["by_key"]["results"]["removed"] == 1
    assert by_name["by_colour"]["windows"]["differs"] == 0
    assert windows(promote(scene)) == {"same": windows(report)["same"], "promoted": 3}
    check(scene, Truth(log_of()[1]))
    after = dict(scene.query("SELECT window_start, sum(revision) FROM overall GROUP BY 1"))
    assert {start for start in after if after[start] > revisions[start]} == {starts[3]}
    everything = scene.everything()
    assert promote(scene).complete
    assert scene.everything() == everything


def test_a_file_that_has_changed(make: Make) -> None:
    """Another rule and another delay, for a part of the windows: there results and late counts are those of the new file, all
    else is as it was."""
    scene = make(**NO_DEDUPE)
    scene.read()
    span = Range(START, START + 4 * HOP_SIZE)
    old = truth_of(without_id)
    changes = {"rules": PIPELINE["rules"][:1], "eventTime": PIPELINE["eventTime"] | {"delay": "9000 ms"}}
    report = compute(scene, span, split=400, **changes)
    assert windows(report)["differs"] > 5
    replays = [one["replayedRecords"] for one in report.document()["aggregations"]]
    assert max(replays) > 0, "whoever promotes is told of replays, which count beside an original that passes now"
    with pytest.raises(ConfigError, match="the pipeline file has changed since"):
        promote(scene)
    assert promote(scene, **changes).complete
    new = Truth([without_id(_any_colour(one)) for one in log_of()[1]], delay=9000)
    check(scene, new, span)
    check(scene, old, Range(0, span.begin))
    check(scene, old, Range(span.end, ALL.end))
    inside = f"window_start >= '{_iso(span.begin)}' AND window_start < '{_iso(span.end)}'"
    missing = scene.query(f"SELECT sum(missing) FROM tidegate_late_windows WHERE {inside}")[0][0]
    assert missing == new.missing(span) != old.missing(span)


def _any_colour(one: Meant) -> Meant:
    """As a pipeline without the rule on colours takes it."""
    return replace(one, fault=None) if (one.fault, one.colour) == ("RuleViolation", "RED") else one


def test_windows_that_change_meanwhile(make: Make) -> None:
    """What a reader adds to after the computation is left as it is and said; all else is promoted."""
    scene = make(**NO_DEDUPE)
    scene.read(0.9)
    scene.query("UPDATE by_key_partials SET n__n = n__n + 1 RETURNING 1")
    differing = windows(compute(scene))["differs"]
    scene.read()
    report = promote(scene)
    assert not report.complete
    assert 0 < windows(report)["promoted"] < differing
    assert windows(report)["changed"] > 0
    assert windows(compute(scene))["differs"] == differing - windows(report)["promoted"]
    assert promote(scene).complete
    check(scene, truth_of(without_id))


def test_a_log_that_has_lost_its_beginning(make: Make) -> None:
    """Windows that would have fewer records than they have are not touched."""
    scene = make(**NO_DEDUPE)
    scene.read()
    before = scene.everything()
    admin = AdminClient({"bootstrap.servers": scene.servers})
    tp = scene.tps[1]
    for done in admin.delete_records([KafkaPartition(tp.topic, tp.partition, 900)]).values():
        done.result(30)
    report = compute(scene)
    assert report.document()["logHasItsBeginning"] is False
    assert windows(report)["lost"] > 10
    promoted = promote(scene)
    assert not promoted.complete
    assert scene.query("SELECT sum(records) FROM by_key_partials WHERE partition <> 1") > [(0,)]
    assert len(before[2]) <= len(scene.everything()[2])


def test_a_topic_that_is_not_there_any_more(make: Make) -> None:
    """Taken out of the file and deleted: its records stay in the results, and both ways of backfilling do the others."""
    scene = make(**NO_DEDUPE)
    scene.read()
    gone = scene.tps[1].partition
    tables = ["tidegate_partitions", "tidegate_late_windows", *(f"{a['name']}_partials" for a in FEW)]
    with psycopg.connect(scene.url) as connection:
        for table in tables:
            connection.execute(f"UPDATE {table} SET topic = 'gone' WHERE partition = {gone}".encode())
    records = scene.query("SELECT sum(records) FROM by_key_partials WHERE topic = 'gone'")
    report = compute(scene)
    assert report.document()["logHasItsBeginning"] is False
    assert windows(report)["lost"] > 10
    promote(scene)
    late = scene.backfill().document()
    assert {row["topic"]: row["problem"] is None for row in late["partitions"]} == {
        "gone": False,
        scene.tps[0].topic: True,
    }
    assert scene.query("SELECT sum(records) FROM by_key_partials WHERE topic = 'gone'") == records


def test_a_topic_of_the_file_that_a_broker_does_not_know(kafka: KafkaTopics) -> None:
    """It is no topic that has gone: the broker may not have heard of it yet."""
    log = KafkaRange(Kafka.model_validate({"bootstrapServers": kafka.bootstrap_servers}), "backfill", ("later",))
    with pytest.raises(BrokerUnavailable):
        log.bounds([TopicPartition("later", 0)])
    assert replace(log, topics=()).bounds([TopicPartition("later", 0)]) == {}


def test_records_that_the_stages_or_the_database_refuse(make: Make) -> None:
    """They are left out of the windows, one by one, as a run leaves them out when it dead-letters them."""
    by_user = [{**FEW[0], "groupBy": ["user"], "measures": {"n": "count"}}]
    settings = {"dedupe": None, "aggregations": by_user, "handlers": [{"call": "tests.contract.late_handlers:choose"}]}
    scene = make(**settings)
    scene.read()
    late_handlers.refusing.set()
    try:
        compute(scene)
        assert promote(scene).complete
    finally:
        late_handlers.refusing.clear()
    sql = "SELECT count(*) FROM panes WHERE aggregation = 'by_key' AND NOT missed AND \"user\" NOT IN ('ann', 'bob')"
    expected = truth_of(without_id)._con.execute(sql).fetchall()
    assert [(int(n),) for (n,) in scene.query("SELECT sum(n) FROM by_key")] == expected
    assert scene.query("SELECT count(*) FROM by_key WHERE \"user\" IN ('ann', 'bob')") == [(0,)]


def test_there_is_nothing_to_promote(make: Make) -> None:
    """Before a computation, the error says what to do."""
    scene = make(**NO_DEDUPE)
    with pytest.raises(ConfigError, match=r"no shadow has been computed(.|\n)*--from"):
        promote(scene)


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
