"""`tidegate batch archive`: every record of the source once, as it was, on disk and in S3; and a backfill that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.parquet as pq
import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from pyarrow import fs

from batch.archive.layout import Archive
from batch.archive.read import ArchivedLog
from batch.archive.write import ArchiveReport, ArchiveRun
from batch.backfill.pool import Here
from batch.backfill.ranges import KafkaRange
from batch.backfill.recompute import RecomputeBackfill
from batch.backfill.splits import Split
from tests.contract.late_scene import LateScene, Told
from tests.contract.same_numbers_log import PIPELINE, Truth, make_log
from tests.contract.test_same_numbers import same_rows
from tests.harness import produce, wait_until
from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError, OffsetOutOfRange
from tidegate.record import TopicPartition
from tidegate.store.shadow import Range

if TYPE_CHECKING:
    from pathlib import Path

    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database
    from tests.providers.s3 import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.kafka]
DAY = 86_400_000
Headers = list[tuple[str, bytes | None]]


class Topic:
    """A source topic of two partitions and what was written to it: (partition, offset) → all of the record."""

    def __init__(self, kafka: KafkaTopics) -> None:
        self.servers, self.name = kafka.bootstrap_servers, kafka.topic(partitions=2, config={"retention.ms": "-1"})
        self.written: dict[tuple[int, int], tuple[Any, ...]] = {}
        document = {
            "pipelineId": self.name,
            "kafka": {"bootstrapServers": self.servers},
            "source": {"topics": [self.name]},
            "schema": [{"name": "id", "type": "bigint"}],
        }
        self.pipeline = Pipeline.model_validate(document)
        self.log = KafkaRange.of(self.pipeline, "archive")

    def feed(self, random: Random, count: int) -> None:
        """Records over three days, out of order; with and without key, value and headers; of bytes that are no text."""
        given: list[dict[str, Any]] = []
        for number in range(count):
            headers: Headers = [("a", b"\xff"), ("a", None), ("tidegate.x", b"")] if random.random() < 0.2 else []
            given.append(
                {
                    "key": random.choice([None, b"", b"\x00\xfe"]),
                    "value": random.choice([None, b"", random.randbytes(20)]),
                    "headers": headers,
                    "timestamp": 20_000 * DAY + random.randrange(3 * DAY),
                    "partition": number % 2,
                }
            )
        for record, place in zip(given, produce(self.servers, self.name, given), strict=True):
            self.written[place] = tuple(record[name] for name in ("key", "value", "headers", "timestamp"))

    def archive(self, place: str) -> ArchiveReport:
        return ArchiveRun(self.pipeline, place, Told(), stretch=70).run()

    def lose(self, partition: int, offset: int) -> None:
        lose(self.servers, self.name, partition, offset)


def lose(servers: str, topic: str, partition: int, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    for done in admin.delete_records([KafkaPartition(topic, partition, offset)]).values():
        done.result(30)


@pytest.fixture
def topic(kafka: KafkaTopics) -> Topic:
    return Topic(kafka)


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of places."""
    if request.param == "disk":
        return str(tmp_path / "archive")
    server: S3Server = request.getfixturevalue("s3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim12")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    return f"s3://{server.bucket()}/logs"


def everything(place: str, topic: Topic) -> dict[tuple[int, int], tuple[Any, ...]]:
    """What any reader of Parquet finds in the directory; no record may be there twice."""
    archive = Archive(place)
    system, root = archive._open()
    files = system.get_file_info(fs.FileSelector(f"{root}/{topic.name}", recursive=True))
    found: dict[tuple[int, int], tuple[Any, ...]] = {}
    for path in (one.path.removeprefix(f"{root}/") for one in files if one.is_file):
        day = path.split("/")[1].removeprefix("date=")
        with archive.open(path) as file:
            rows = pq.ParquetFile(file).read().to_pylist()
        for row in rows:
            at = (row["partition"], row["offset"])
            assert at not in found, f"{at} is there twice"
            assert row["timestamp"].date().isoformat() == day
            headers = [(one["key"], one["value"]) for one in row["headers"] or []]
            found[at] = (row["key"], row["value"], headers, int(row["timestamp"].timestamp() * 1000))
    return found


def test_every_record_is_archived_once(topic: Topic, place: str, seed: int) -> None:
    """As it was, by day; the next run goes on behind it, and one with nothing to do writes nothing."""
    random = Random(seed)
    topic.feed(random, 300)
    first = topic.archive(place)
    assert first.document()["records"] == 300
    assert everything(place, topic) == topic.written
    topic.feed(random, 100)
    assert topic.archive(place).document()["records"] == 100
    assert everything(place, topic) == topic.written
    assert topic.archive(place).document() | {"partitions": []} == {
        "pipelineId": topic.name, "to": place, "records": 0, "files": 0, "partitions": [],
    }  # fmt: skip


def test_a_directory_that_duckdb_reads(topic: Topic, tmp_path: Path, seed: int) -> None:
    """The days are a column, and tidegate's own files are left out."""
    topic.feed(Random(seed), 200)
    topic.archive(str(tmp_path / "a"))
    sql = f'SELECT count(*), count(DISTINCT date), min("offset") FROM "{tmp_path}/a/{topic.name}/**/*.parquet"'
    assert duckdb.sql(sql).fetchall() == [(200, 3, 0)]


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("ahead", [False, True])
def test_killed_at_any_write(
    topic: Topic, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    """Before or after a plan, a file or a stretch's end is written, while the log grows: at the end each record is there once.
    `ahead`: files are written before the stretches before theirs are done, as it is when several processes work."""
    random, real, place = Random(seed), Archive.write, str(tmp_path / "archive")
    left = [0]

    def write(self: Archive, path: str, data: Any) -> None:
        left[0] -= 1
        if left[0] == 0 and random.random() < 0.5:
            raise Killed
        real(self, path, data)
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(Archive, "write", write)
    if ahead:
        monkeypatch.setattr(Here, "map", lambda self, task, inputs: iter([task(one) for one in list(inputs)]))
    topic.feed(random, 200)
    for writes in (1, 3, 7, 10, 13, 15, 16, 17) if ahead else range(1, 9):
        left[0] = writes
        with pytest.raises(Killed):
            topic.archive(place)
        topic.feed(random, 30)
    left[0] = -1
    topic.archive(place)
    assert everything(place, topic) == topic.written


def test_records_that_were_lost_before_they_were_archived(topic: Topic, tmp_path: Path, seed: int) -> None:
    """An error, unless `onOutOfRange: earliest` accepts the gap, which is named then."""
    random, place = Random(seed), str(tmp_path / "archive")
    topic.feed(random, 100)
    topic.archive(place)
    topic.feed(random, 100)
    topic.lose(0, 80)
    with pytest.raises(OffsetOutOfRange, match=r"goes on at offset 50, but the log has 80 to 99"):
        topic.archive(place)
    assert topic.pipeline.source is not None
    source = topic.pipeline.source.model_copy(update={"on_out_of_range": "earliest"})
    topic.pipeline = topic.pipeline.model_copy(update={"source": source})
    assert topic.archive(place).gaps == {TopicPartition(topic.name, 0): (50, 79)}
    lost = {(0, offset) for offset in range(50, 80)}
    assert everything(place, topic).keys() == topic.written.keys() - lost


def test_the_log_from_the_archive(topic: Topic, place: str, seed: int) -> None:
    """Any range of offsets gives the records that Kafka gave, from the archive what Kafka no longer has, and from Kafka what
    the archive has not yet."""
    random = Random(seed)
    topic.feed(random, 300)
    topic.archive(place)
    topic.feed(random, 60)
    tp, log = TopicPartition(topic.name, 0), ArchivedLog(Archive(place), topic.log)
    everything_ = [batch for raw in topic.log.read(Split(tp, 0, 180), 1000) for batch in raw.records.to_pylist()]
    topic.lose(0, 120)
    assert log.bounds([tp]) == {tp: (0, 180)}
    for start, end in [(0, 180), (0, 1), (69, 71), (10, 130), (100, 160), (170, 180)]:
        found = [raw.records for raw in log.read(Split(tp, start, end), 40)]
        assert [row for batch in found for row in batch.to_pylist()] == everything_[start:end]
        assert all(len(batch) <= 40 for batch in found[:2])
    with pytest.raises(ConfigError, match="has nothing of the pipeline's topics"):
        ArchivedLog(Archive(f"{place}/elsewhere"), topic.log).bounds([tp])


def test_a_topic_that_is_gone_is_what_the_archive_has_of_it(topic: Topic, tmp_path: Path, seed: int) -> None:
    """And one that was never archived is not there."""
    place = str(tmp_path / "archive")
    topic.feed(Random(seed), 100)
    topic.archive(place)
    tp, other = TopicPartition(topic.name, 0), TopicPartition("never", 0)
    log = ArchivedLog(Archive(place), replace(topic.log, topics=()))
    (whole,) = log.bounds([tp]).values()
    admin = AdminClient({"bootstrap.servers": topic.servers})
    for done in admin.delete_topics([topic.name]).values():
        done.result(30)
    wait_until(lambda: topic.name not in admin.list_topics(timeout=10).topics, 30, "the topic is gone")
    assert log.bounds([tp, other]) == {tp: whole}


@pytest.fixture
def scene(kafka: KafkaTopics, postgres: Database) -> Iterator[LateScene]:
    settings = {"dedupe": None, "aggregations": PIPELINE["aggregations"][2:], "lateData": {"strategy": "drop"}}
    made = LateScene(kafka, postgres.url, make_log(2000)[0], **settings)
    yield made
    made.close()


@pytest.mark.postgres
def test_a_backfill_reaches_further_than_retention(scene: LateScene, tmp_path: Path) -> None:
    """Kafka has lost most of the log: from the archive late records are added, and windows are computed anew, all the same."""
    place = str(tmp_path / "archive")
    scene.read()
    ArchiveRun(scene.pipeline, place, Told(), stretch=400).run()
    for tp in scene.tps[:3]:
        lose(scene.servers, tp.topic, tp.partition, -1)
    assert not scene.backfill().complete
    log = ArchivedLog(Archive(place), KafkaRange.of(scene.pipeline, "backfill"))
    assert scene.backfill(source=log).complete
    truth = Truth([replace(one, id=None) for one in make_log(2000)[1]])
    same_rows(scene.results(), {"overall": truth.rows("overall", late=True)})
    scene.query("UPDATE overall_partials SET n__n = n__n + 1 RETURNING 1")
    running = RecomputeBackfill(scene.pipeline, Told(), log=log, split=500)
    running.compute(Range(0, 2**45))
    _, whole, (found,) = running.promote()
    assert (whole, found.windows.keys()) == (True, {"promoted"})
    same_rows(scene.results(), {"overall": truth.rows("overall", late=True)})
