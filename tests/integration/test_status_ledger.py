"""`tidegate status` and `tidegate ledger` over a real broker and a real store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer
from typer.testing import CliRunner

from tests.harness import wait_until
from tidegate.clock import ManualClock
from tidegate.config.loading import load_pipeline
from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import changelog_topic
from tidegate.ledger import Ledger
from tidegate.record import Stage, TopicPartition, record_id
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import compile_plan
from tidegate.store import open_store
from tidegate.store.base import StoreBatch
from tidegate.store.group import read_group
from tidegate.store.rows import PARTITION_KEY, encode_state

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

HIGH_WATER = 1_357_002_000_000  # 2013-01-01T01:00:00Z
STATE = PartitionState(99, HIGH_WATER, None, Ledger(100, 90, 4, 6))


class Stack:
    """A source topic with 110 records in two partitions, a pipeline over it, and what a worker would have written."""

    def __init__(self, kafka: KafkaTopics, folder: Path, **settings: Any) -> None:
        self.kafka, self.topic = kafka, kafka.topic(partitions=2)
        self.name = f"p-{self.topic}"
        self.file = folder / "pipeline.json"
        document = {
            "pipelineId": self.name,
            "kafka": {"bootstrapServers": kafka.bootstrap_servers},
            "source": {"topics": [self.topic]},
            "schema": [{"name": "at", "type": "timestamp", "unit": "ms"}],
            "eventTime": {"column": "at", "delay": "1 minute"},
            "aggregations": [{"name": "hourly", "window": {"size": "1 hour"}, "measures": {"n": "count"}}],
            "sinks": [{"type": "sqlite", "path": str(folder / "store.db")}],
        }
        self.file.write_text(json.dumps(document | settings))
        self.tp = TopicPartition(self.topic, 0)
        self.produce(self.topic, [(b"{}", {}) for _ in range(110)])

    @property
    def pipeline(self) -> Pipeline:
        return load_pipeline(self.file)

    def produce(self, topic: str, records: list[tuple[bytes, dict[str, str]]], *, key: bytes | None = None) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for value, headers in records:
            producer.produce(topic, value, key, partition=0, headers={n: text.encode() for n, text in headers.items()})
        producer.flush()

    def store(self, state: PartitionState, tp: TopicPartition | None = None) -> None:
        """What the worker commits to its store for partition 0, or this one."""
        tp = tp or self.tp
        pipeline = self.pipeline
        store = open_store(compile_plan(pipeline), pipeline.sinks[0], ManualClock())  # type: ignore[arg-type]  # the pipeline of this test has a database's sink
        store.prepare()
        row = store.claim([tp], "w1")[tp]
        store.write(StoreBatch(tp, row.epoch, row.state.upto, state))
        store.close()

    def dead_letters(self, offsets: list[int]) -> None:
        """Records in the dead-letter topic."""
        ids = [record_id(self.tp, offset, Stage.DECODE) for offset in offsets]
        records = [(b"", {"tidegate.dlq.id": name, "tidegate.dlq.stage": "decode"}) for name in ids]
        self.produce(self.kafka.topic(name=f"{self.name}.dlq"), records)

    def late(self, offsets: list[int], partial: list[int]) -> None:
        """Records in the late topic, some of which counted for other windows."""
        ids = [(record_id(self.tp, offset), "false") for offset in offsets]
        ids += [(record_id(self.tp, offset, Stage.EVENT_TIME), "true") for offset in partial]
        records = [(b"", {"tidegate.late.id": name, "tidegate.late.partial": flag}) for name, flag in ids]
        self.produce(self.kafka.topic(name=f"{self.name}.late"), records)

    def run(self, command: str, *options: str, code: int = 0) -> str:
        from tidegate.cli.main import app

        done = CliRunner().invoke(app, [command, str(self.file), *options], env={"COLUMNS": "200"})
        assert done.exit_code == code, done.output
        return str(done.output)

    def rows(self, command: str, code: int = 0) -> list[dict[str, Any]]:
        document: dict[str, Any] = json.loads(self.run(command, "--json", code=code))
        partitions: list[dict[str, Any]] = document["partitions"]
        return partitions


@pytest.fixture
def stack(kafka: KafkaTopics, tmp_path: Path) -> Stack:
    return Stack(kafka, tmp_path)


def test_status_shows_every_partition(stack: Stack) -> None:
    """Applied offset, end, lag and watermark of the claimed partition; the other one is shown as not begun."""
    stack.store(STATE)
    first, second = stack.rows("status")
    assert first == {
        "topic": stack.topic, "partition": 0, "committed": None, "upto": 99, "end": 110, "lag": 10,
        "watermark": "2013-01-01T00:59:00.000Z", "idle": False, "openWindows": 0,
        "lateMissing": 0, "lateRefused": 0, "lateAmended": 0, "lateExpired": 0, "epoch": 1, "owner": "w1", "note": None,
    }  # fmt: skip
    assert (second["partition"], second["upto"], second["lag"], second["owner"]) == (1, None, 0, None)
    assert "2013-01-01T00:59" in stack.run("status")


def test_partitions_that_nobody_reads_any_more(stack: Stack) -> None:
    """Both commands show what there is of a topic that has left the file, and say so; its ledger balances as before."""
    stack.store(replace(STATE, ledger=Ledger(100, 100)))
    stack.store(PartitionState(7, HIGH_WATER, None, Ledger(8, 8)), TopicPartition(stack.topic, 5))
    assert [(row["partition"], row["note"]) for row in stack.rows("status")] == [
        (0, None), (1, None), (5, "no such partition"),
    ]  # fmt: skip
    other = stack.kafka.topic(partitions=1)
    stack.file.write_text(stack.file.read_text().replace(f'["{stack.topic}"]', f'["{other}"]'))
    current, *left = stack.rows("status")
    assert (current["topic"], current["note"]) == (other, None)
    assert [(row["topic"], row["partition"], row["upto"], row["end"]) for row in left] == [
        (stack.topic, 0, 99, None), (stack.topic, 5, 7, None),
    ]  # fmt: skip
    assert {row["note"] for row in left} == {"topic not in the file"}
    assert [(row["read"], row["balanced"], row["note"]) for row in stack.rows("ledger")] == [
        (100, True, "topic not in the file"), (8, True, "topic not in the file"),
    ]  # fmt: skip
    for command in ("status", "ledger"):
        assert "topic not in the file" in stack.run(command)


def test_status_before_the_first_start(stack: Stack) -> None:
    """Nothing is stored yet: everything in the topic is lag."""
    assert [row["lag"] for row in stack.rows("status")] == [110, 0]


def test_who_is_in_the_group(stack: Stack) -> None:
    """The coordinator knows each worker with its host and how many partitions it has; before there is any, the group is empty."""
    assert read_group(stack.pipeline, 10).members == ()
    settings = {"bootstrap.servers": stack.kafka.bootstrap_servers, "group.id": stack.name, "client.id": "w1"}
    consumer = Consumer(settings)
    try:
        consumer.subscribe([stack.topic])
        wait_until(
            lambda: consumer.poll(0.1) is None and len(consumer.assignment()) == 2, 60, "the member has its share"
        )
        group = read_group(stack.pipeline, 10)
        assert (group.state, [(one.client, one.partitions) for one in group.members]) == ("stable", [("w1", 2)])
        assert group.members[0].host
    finally:
        consumer.close()


def test_a_balanced_ledger(stack: Stack) -> None:
    """Repeats, partly late records, other pipelines' dead letters and what came after `upto` count for nothing."""
    stack.store(STATE)
    stack.dead_letters([1, 2, 3, 4, 4, 1, 105])
    other = {"tidegate.dlq.id": f"{stack.topic}-0-9", "tidegate.dlq.pipeline": "other"}
    stack.produce(f"{stack.name}.dlq", [(b"", other)])
    stack.produce(f"{stack.name}.dlq", [(b"", {"tidegate.dlq.id": "elsewhere-0-9"}), (b"", {"own": "header"})])
    stack.late([10, 11, 12, 13, 14, 15, 10], partial=[20, 21])
    [row] = stack.rows("ledger")
    assert (row["read"], row["accepted"], row["dead_lettered"], row["deadLetterIds"], row["lateIds"]) == (
        100,
        90,
        4,
        4,
        6,
    )
    assert (row["balanced"], row["problems"]) == (True, [])


def test_every_difference_is_named_with_its_number(stack: Stack) -> None:
    """A ledger that does not add up, a dead letter lost, a late record too many: exit code 1, and by how many."""
    stack.store(replace(STATE, ledger=replace(STATE.ledger, accepted=87)))
    stack.dead_letters([1, 2, 3])
    stack.late([10, 11, 12, 13, 14, 15, 16], partial=[])
    [row] = stack.rows("ledger", code=1)
    assert row["problems"] == [
        "read 100, but 97 are accounted for: 3 missing",
        f"4 dead-lettered, but 3 different ids in topic {stack.name}.dlq: 1 missing",
        f"6 late, but 7 different ids in topic {stack.name}.late: 1 too many",
    ]
    assert "3 missing" in stack.run("ledger", code=1)


def test_late_records_among_the_dead_letters(kafka: KafkaTopics, tmp_path: Path) -> None:
    """With sendToDLQ a LateRecord is a late record; a FutureEventTime of the same stage is a dead letter."""
    stack = Stack(kafka, tmp_path, lateData={"strategy": "sendToDLQ"})
    stack.store(STATE)
    stack.dead_letters([1, 2, 3])
    future = {"tidegate.dlq.error.type": "FutureEventTime", "tidegate.dlq.stage": "event_time"}
    late = {"tidegate.dlq.error.type": "LateRecord", "tidegate.dlq.stage": "event_time"}
    ids = [(record_id(stack.tp, 4, Stage.EVENT_TIME), future), (record_id(stack.tp, 30, Stage.EVENT_TIME), late)]
    ids += [(record_id(stack.tp, offset), late) for offset in range(10, 16)]
    stack.produce(f"{stack.name}.dlq", [(b"", {"tidegate.dlq.id": name} | headers) for name, headers in ids])
    [row] = stack.rows("ledger")
    assert (row["deadLetterIds"], row["lateIds"]) == (4, 6)


def test_what_goes_to_no_topic_is_not_looked_for(kafka: KafkaTopics, tmp_path: Path) -> None:
    """Dropped late records and logged dead letters are in the ledger alone."""
    stack = Stack(
        kafka,
        tmp_path,
        lateData={"strategy": "drop"},
        errorHandling={"deadLetterQueue": {"type": "log"}},
    )
    stack.store(STATE)
    [row] = stack.rows("ledger")
    assert (row["deadLetterIds"], row["lateIds"], row["balanced"]) == (None, None, True)


def test_aborted_records_do_not_count(stack: Stack) -> None:
    """A dead letter of a transaction that was aborted is none, and control records at the end do not hang the audit."""
    stack.store(replace(STATE, ledger=Ledger(100, 100)))
    topic = stack.kafka.topic(name=f"{stack.name}.dlq")
    producer = Producer({"bootstrap.servers": stack.kafka.bootstrap_servers, "transactional.id": stack.name})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"", headers={"tidegate.dlq.id": record_id(stack.tp, 1).encode()})
    producer.flush()
    producer.abort_transaction()
    [row] = stack.rows("ledger")
    assert row["deadLetterIds"] == 0


@pytest.mark.parametrize("noise", [0, 2_500])
def test_without_a_store_the_changelog_is_read(kafka: KafkaTopics, tmp_path: Path, noise: int) -> None:
    """The newest partition row of the state changelog, however far from its end, serves both commands."""
    stack = Stack(kafka, tmp_path, sinks=[{"type": "kafka"}], lateData={"strategy": "drop"})
    changelog = kafka.topic(partitions=2, name=changelog_topic(stack.name, stack.topic))
    for state in (PartitionState(5), replace(STATE, idle=True, ledger=Ledger(100, 100))):
        stack.produce(changelog, [(encode_state(state), {})], key=PARTITION_KEY)
    stack.produce(changelog, [(b"row", {}) for _ in range(noise)], key=b"Wkey")
    first, second = stack.rows("status")
    assert (first["upto"], first["idle"], first["openWindows"], first["epoch"]) == (99, True, None, None)
    assert second["upto"] is None
    [row] = stack.rows("ledger")
    assert (row["read"], row["balanced"]) == (100, True)


def test_nothing_read_yet_is_said(stack: Stack) -> None:
    """Before the first start there is nothing to audit."""
    assert "no partition has been read yet" in stack.run("ledger")


@pytest.mark.parametrize("command", ["status", "ledger"])
def test_a_source_topic_that_is_not_there(stack: Stack, command: str) -> None:
    """Both commands name it, instead of an empty table."""
    document = json.loads(stack.file.read_text()) | {"source": {"topics": ["no-such-topic"]}}
    stack.file.write_text(json.dumps(document))
    said = stack.run(command, code=2)
    assert "source.topics: this topic does not exist" in said
    assert "no-such-topic" in said


def test_a_broker_that_is_away(stack: Stack) -> None:
    """The error names the address; no traceback."""
    document = json.loads(stack.file.read_text()) | {"kafka": {"bootstrapServers": "127.0.0.1:1"}}
    stack.file.write_text(json.dumps(document))
    assert "127.0.0.1:1 (connection refused)" in stack.run("ledger", code=1)


@pytest.mark.postgres
def test_the_same_from_postgres(kafka: KafkaTopics, postgres: Database, tmp_path: Path) -> None:
    """With a PostgreSQL sink both commands read its partition rows, and create nothing."""
    stack = Stack(kafka, tmp_path, sinks=[{"type": "postgres", "url": postgres.url}], lateData={"strategy": "drop"})
    assert [row["upto"] for row in stack.rows("status")] == [None, None]
    stack.store(replace(STATE, ledger=Ledger(100, 100)))
    assert stack.rows("status")[0]["upto"] == 99
    assert stack.rows("ledger")[0]["balanced"] is True
