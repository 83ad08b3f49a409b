"""`tidegate dlq` without an index: the dead-letter topics are read, on a real broker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer.testing
from confluent_kafka import Consumer, Producer
from msgspec.structs import replace

from dlq.dialects import last_values
from dlq.kind import Kinds
from dlq.letter import Letter, RawRecord
from dlq.publishers import open_publisher
from dlq.reader import read_records
from tests.providers.kafka import KafkaTopics
from tidegate.cli.main import app as tidegate
from tidegate.config.kafka import Kafka
from tidegate.config.loading import load_pipeline
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.record import OutRow, Stage, TopicPartition
from tidegate.stages.batch import Reason, Rejection
from tidegate.stages.plan import Plan

pytestmark = pytest.mark.kafka
NOW_MS = 1_700_000_000_000
SOURCE = TopicPartition("flights", 0)


class Queue:
    """A pipeline file with a fresh dead-letter topic, and what was written to it."""

    def __init__(
        self, kafka: KafkaTopics, folder: Path, partitions: int, dialect: str = "connect", **dead_letters: Any
    ) -> None:
        self.kafka, self.topic, self.partitions = kafka, kafka.topic(partitions=partitions), partitions
        self.file = folder / f"{self.topic}.json"
        queue = {"type": "kafka", "config": {"topic": self.topic, "dialect": dialect, "maxValueBytes": 1000}}
        document = {
            "pipelineId": "flights",
            "kafka": {"bootstrapServers": kafka.bootstrap_servers},
            "errorHandling": {"deadLetterQueue": queue},
            "worker": {"stateDir": str(folder / "state")},
            "deadLetters": dead_letters,
        }
        self.file.write_text(json.dumps(document))
        plan = Plan(load_pipeline(self.file), pa.schema([]), pa.schema([]), ())
        self.publisher = open_publisher(plan)

    def rows(self, letters: Iterable[Letter], source: TopicPartition) -> list[OutRow]:
        return self.publisher.rows(list(letters), source, self.partitions)

    def producer(self, **options: Any) -> Producer:
        return Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "linger.ms": 0, **options})

    def write(self, rows: Iterable[OutRow], producer: Producer | None = None) -> None:
        writer = producer or self.producer()
        for row in rows:
            writer.produce(
                row.topic, row.value, row.key, row.partition, headers=list(row.headers), timestamp=row.timestamp or 0
            )
        assert writer.flush(30) == 0

    def run(self, command: str, *arguments: str) -> typer.testing.Result:
        return typer.testing.CliRunner().invoke(tidegate, ["dlq", command, str(self.file), *arguments])

    def json(self, command: str, *arguments: str) -> Any:
        result = self.run(command, "--json", *arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        letters: list[dict[str, Any]] = self.json("list", *arguments)["letters"]
        return letters


@pytest.fixture
def queue(kafka: KafkaTopics, tmp_path: Path) -> Callable[..., Queue]:
    """A fresh dead-letter topic of a number of partitions."""
    return lambda partitions=3, **options: Queue(kafka, tmp_path, partitions, **options)


def letter(
    offset: int,
    *,
    source: TopicPartition = SOURCE,
    stage: Stage = Stage.DECODE,
    error: str = "WrongType",
    message: str = "expected bigint",
    now_ms: int = NOW_MS,
    **record: Any,
) -> Letter:
    return Letter.of(
        Rejection(offset, stage, (Reason(error, f"{message}, found {offset}", field="delay"),), stack="Traceback\n  x"),
        RawRecord(source, offset, 5, **{"key": b"k%d" % offset, "value": b'{"delay": "x"}', **record}),
        Kinds(pipeline="flights", schema="flights@0", now_ms=now_ms),
    )


@pytest.mark.slow
def test_list_as_json(queue: Callable[..., Queue]) -> None:
    """Every dead letter of every partition is there, as the index would have it; no index is left behind."""
    dlq = queue()
    for partition in range(3):
        source = TopicPartition("flights", partition)
        dlq.write(dlq.rows((letter(o, source=source) for o in range(4)), source))
    found = dlq.json("list")
    assert (found["count"], found["exact"], found["next"]) == (12, True, None)
    assert {d["id"] for d in found["letters"]} == {f"flights-{p}-{o}" for p in range(3) for o in range(4)}
    (one,) = [d for d in found["letters"] if d["id"] == "flights-2-3"]
    told = {"stage": "decode", "errorType": "WrongType", "message": "expected bigint, found 3", "state": "open"}
    told |= {"source": "flights", "partition": 2, "offset": 3, "timestamp": 5, "key": "k3", "value": {"delay": "x"}}
    told |= {"deadLetterTopic": dlq.topic, "lastFailure": "2023-11-14T22:13:20.000Z", "attempt": 1, "replays": 0}
    assert {name: one[name] for name in told} == told
    assert not list(dlq.file.parent.rglob("*.sqlite"))


@pytest.mark.slow
def test_list_filters(queue: Callable[..., Queue]) -> None:
    """Each part of a filter narrows the list, as over an index."""
    dlq, source = queue(1), SOURCE
    letters = [
        letter(1, source=source, now_ms=NOW_MS + 1000),
        letter(2, source=source, stage=Stage.VALIDATE, error="RuleViolation", now_ms=NOW_MS + 3000),
        letter(3, source=source, message="something else", now_ms=NOW_MS + 2000, value=b'{"delay": {"by": 7}}'),
    ]
    dlq.write(dlq.rows(letters, source))

    def offsets(*arguments: str) -> list[int]:
        return [d["offset"] for d in dlq.listed(*arguments)]

    assert offsets() == [2, 3, 1]
    assert offsets("--stage", "validate") == [2]
    assert offsets("--error", "wrongtype") == [3, 1]
    assert offsets("--error", letters[2].kind.fingerprint) == [3]
    assert offsets("--group", letters[2].kind.fingerprint) == [3]
    assert offsets("--since", "2023-11-14T22:13:22Z") == [2, 3]
    assert offsets("--until", "2023-11-14T22:13:22Z") == [1]
    assert offsets("--since", "1 day") == []
    assert offsets("--key", "k1") == [1]
    assert offsets("--field", "delay.by=7") == [3]
    assert offsets("something") == [3]
    assert offsets("--state", "resolved") == []
    assert offsets("--limit", "2") == [2, 3]


@pytest.mark.slow
def test_groups_stats_and_export(queue: Callable[..., Queue]) -> None:
    """Whatever only looks does without an index; what works on dead letters says that it needs one."""
    dlq = queue(1)
    dlq.write(dlq.rows((letter(o) for o in range(5)), SOURCE))
    (group,) = dlq.json("groups")
    assert (group["count"], group["open"]) == (5, 5)
    assert dlq.json("stats")["letters"] == 5
    assert dlq.run("export").stdout.count("flights-0-") == 5
    told = dlq.run("ack", group["group"]).stderr
    assert "has not been made" in told
    assert "tidegate dlq agent" in told


@pytest.mark.slow
def test_masks_without_an_index(queue: Callable[..., Queue]) -> None:
    """What the pipeline file masks is masked; revealing it needs an index, whose history keeps who did it."""
    dlq = queue(1, masking=[{"path": "delay"}])
    dlq.write(dlq.rows([letter(1, value=b'{"delay": "secret"}', message="delay is secret")], SOURCE))
    for command in (
        ("list",),
        ("list", "--json"),
        ("show", "flights-0-1"),
        ("show", "flights-0-1", "--json"),
        ("export",),
    ):
        printed = dlq.run(*command).output
        assert "flights-0-1" in printed
        assert "secret" not in printed
    refused = dlq.run("show", "flights-0-1", "--reveal", "--reason", "to compare")
    assert "has not been made" in refused.stderr
    assert "secret" not in refused.output


@pytest.mark.slow
def test_list_as_a_table(queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch) -> None:
    """The table shows the newest dead letters; a second page would begin anywhere, so it needs an index."""
    monkeypatch.setenv("COLUMNS", "220")
    dlq = queue(1)
    source = SOURCE
    dlq.write(dlq.rows((letter(o, source=source, now_ms=NOW_MS + o) for o in range(60)), source))
    dlq.write(
        dlq.rows(
            [letter(99, source=source, error="Overflow", message="too \x1b[31mlarge\n", now_ms=NOW_MS + 99)], source
        )
    )
    output = dlq.run("list").output
    assert "50 of 61 dead letters, newest first" in output
    assert "more: " not in output
    assert dlq.json("list")["next"] is None
    assert "has not been made" in dlq.run("list", "--after", "1700000000010-11").stderr
    assert "flights-0-59" in output
    assert "flights-0-9 " not in output
    assert "\x1b[31m" not in output
    assert "too \\x1b[31mlarge" in output


@pytest.mark.slow
def test_repeats_are_shown_once(queue: Callable[..., Queue]) -> None:
    """A dead letter that was written twice, as outside a transaction after a crash, is listed once."""
    dlq, source = queue(1), SOURCE
    for _ in range(2):
        dlq.write(dlq.rows((letter(o, source=source) for o in range(3)), source))
    assert sorted((d["offset"], d["repeats"]) for d in dlq.listed()) == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.slow
def test_aborted_and_open_transactions(queue: Callable[..., Queue]) -> None:
    """Dead letters of aborted and open transactions are not shown; their markers at the end do not hang the reader."""
    dlq, source = queue(2), SOURCE
    producer = dlq.producer(**{"transactional.id": f"test-{uuid.uuid4().hex}"})
    producer.init_transactions(30)
    for offset, end in enumerate([producer.commit_transaction, producer.abort_transaction]):
        producer.begin_transaction()
        dlq.write(dlq.rows([letter(offset, source=source)], source), producer)
        end(30)
    assert [d["offset"] for d in dlq.listed()] == [0]
    producer.begin_transaction()
    dlq.write(dlq.rows([letter(7, source=source)], source), producer)
    assert [d["offset"] for d in dlq.listed()] == [0]
    producer.abort_transaction(30)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["connect", "spring", "streams"])
def test_foreign_dead_letters(queue: Callable[..., Queue], dialect: str) -> None:
    """Dead letters that Kafka Connect, Spring or Kafka Streams wrote are listed with their origin and error."""
    dlq, source = queue(1, dialect=dialect), TopicPartition("orders", 4)
    (row,) = dlq.rows([letter(42, source=source)], source)
    foreign = [header for header in row.headers if not header[0].startswith("tidegate.")]
    dlq.write([replace(row, headers=foreign)])
    (document,) = dlq.listed()
    assert (document["id"], document["errorType"]) == ("orders-4-42", "WrongType")
    assert (document["source"], document["partition"], document["offset"]) == ("orders", 4, 42)


@pytest.mark.slow
def test_records_that_nobody_marked(queue: Callable[..., Queue]) -> None:
    """A record without any headers of a dead letter is shown too, with its place in the dead-letter topic."""
    dlq = queue(1)
    dlq.write([OutRow(dlq.topic, 0, None, b"\xff\x00", [], 1000)])
    (document,) = dlq.listed()
    assert (document["id"], document["stage"]) == (f"{dlq.topic}-0-0", "unknown")
    assert (document["key"], document["value"]) == (None, "\\xff\ufffd")


@pytest.mark.slow
def test_show(queue: Callable[..., Queue]) -> None:
    """show prints everything about one dead letter: reasons, headers, stack, and the value indented when it is JSON."""
    dlq, source = queue(1), SOURCE
    dlq.write(dlq.rows([letter(1, source=source), letter(2, source=source, headers=(("own", b"1"),))], source))
    output = dlq.run("show", "flights-0-2").output
    assert "id            flights-0-2" in output
    assert "origin        flights partition 0 offset 2" in output
    assert "WrongType: expected bigint, found 2 (field delay)" in output
    assert '  {\n    "delay": "x"\n  }' in output
    assert "  own: 1" in output
    assert "stack\n  Traceback\n    x" in output
    document = dlq.json("show", "flights-0-2")
    assert document["headers"] == [["own", "1"]]
    assert document["detail"]["stack"] == "Traceback\n  x"
    assert document["deadLetterOffset"] == 1


@pytest.mark.slow
def test_show_what_was_cut(queue: Callable[..., Queue]) -> None:
    """Of a value that was too large, show tells the size and digest of the whole and where the whole record is."""
    dlq, source = queue(1), SOURCE
    dlq.write(dlq.rows([letter(1, source=source, value=b"x" * 5000)], source))
    output = dlq.run("show", "flights-0-1").output
    assert "value; the whole record is at the origin, its value has 5000 bytes, SHA-256 " in output
    assert dlq.json("show", "flights-0-1")["detail"]["valueSize"] == 5000


@pytest.mark.slow
def test_show_an_unknown_id(queue: Callable[..., Queue]) -> None:
    """An id that is not there is refused with the nearest that are."""
    dlq, source = queue(1), SOURCE
    dlq.write(dlq.rows((letter(o, source=source) for o in (41, 43, 900)), source))
    result = dlq.run("show", "flights-0-42")
    assert result.exit_code == 2
    assert "there is no dead letter with this id" in result.stderr
    assert "flights-0-4" in result.stderr.partition("nearest")[2]


@pytest.mark.slow
def test_an_empty_topic(queue: Callable[..., Queue]) -> None:
    """A topic without dead letters says so."""
    dlq = queue(2)
    assert dlq.run("list").output == "no dead letters\n"
    assert dlq.listed() == []


@pytest.mark.slow
@pytest.mark.parametrize("partitions", [2, 3, 8])
def test_another_number_of_partitions(queue: Callable[..., Queue], kafka: KafkaTopics, partitions: int) -> None:
    """With another number of partitions than the source has, every dead letter arrives, each key in one place."""
    dlq = queue(partitions)
    for number in range(6):
        source = TopicPartition("flights", number)
        letters = [letter(o, source=source, key=None if o == 0 else b"key%d" % (o % 3)) for o in range(10)]
        dlq.write(dlq.rows(letters, source))
    assert dlq.json("list")["count"] == 60
    places: dict[tuple[int, bytes | None], set[int]] = {}
    for found in read_records(Kafka(bootstrap_servers=kafka.bootstrap_servers), dlq.topic, field="topic"):
        origin = int(last_values(found.headers)["tidegate.dlq.origin.partition"])
        places.setdefault((origin, found.key), set()).add(found.partition)
    assert all(len(where) == 1 for where in places.values())
    assert all(where == {p} for (p, _), where in places.items() if p < partitions)


@pytest.mark.slow
def test_keys_go_where_kafka_puts_them(queue: Callable[..., Queue], kafka: KafkaTopics) -> None:
    """Hashed dead letters are in the partition that Kafka's default partitioner gives their key."""
    dlq, other = queue(5), kafka.topic(partitions=5)
    source = TopicPartition("flights", 9)
    keys = [uuid.uuid4().bytes[:n] for n in range(1, 17)]
    rows = dlq.rows((letter(o, source=source, key=key) for o, key in enumerate(keys)), source)
    producer = dlq.producer(partitioner="murmur2")
    for key in keys:
        producer.produce(other, b"", key)
    producer.flush(30)
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": other, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([other])
    places: dict[Any, int | None] = {}
    while len(places) < len(keys):
        for message in consumer.consume(100, timeout=1.0):
            places[message.key()] = message.partition()
    consumer.close()
    assert {row.key: row.partition for row in rows} == places


@pytest.mark.slow
def test_a_topic_that_does_not_exist(queue: Callable[..., Queue], kafka: KafkaTopics) -> None:
    """A missing topic is named, with the setting that names it; it is not created."""
    name = f"missing-{uuid.uuid4().hex}"
    for _ in range(2):
        with pytest.raises(ConfigError, match=name):
            list(read_records(Kafka(bootstrap_servers=kafka.bootstrap_servers), name, field="topic"))


@pytest.mark.slow
def test_no_broker() -> None:
    """A broker that does not answer ends in an error that says why, within the time given."""
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9 \(connection refused\)"):
        list(read_records(Kafka(bootstrap_servers="127.0.0.1:9"), "any", field="topic", patience=1.0))


@pytest.mark.slow
def test_large_topics_are_streamed(queue: Callable[..., Queue], kafka: KafkaTopics) -> None:
    """A reader that stops early has not read the whole topic."""
    dlq, source = queue(1), SOURCE
    dlq.write(dlq.rows((letter(o, source=source) for o in range(5000)), source))
    records = read_records(Kafka(bootstrap_servers=kafka.bootstrap_servers), dlq.topic, field="topic")
    assert next(records).offset == 0
    records.close()  # type: ignore[attr-defined]  # a generator, declared as an iterator
    assert dlq.json("list")["count"] == 5000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--state", "lost"], "no such state"),
        (["--field", "delay"], "customer.country=NO"),
        (["--since", "yesterday"], "not a time"),
        (["--limit", "0"], "Invalid value for '--limit'"),
    ],
)
def test_wrong_options(queue: Callable[..., Queue], arguments: list[str], told: str) -> None:
    """A wrong option is refused with what was expected, before anything is read."""
    result = queue(1).run("list", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize("kind", ["log", "none"])
def test_a_pipeline_without_a_topic(tmp_path: Path, kind: str) -> None:
    """A pipeline whose dead letters are not on Kafka is told so, with the field to change."""
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"pipelineId": "p", "errorHandling": {"deadLetterQueue": {"type": kind}}}))
    result = typer.testing.CliRunner().invoke(tidegate, ["dlq", "list", str(file)])
    assert result.exit_code == 2
    assert "errorHandling.deadLetterQueue.type" in result.stderr
