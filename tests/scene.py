"""A pipeline under test: its file and topic, what was produced, and how what came out compares with the truth."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.harness import Message, WorkerProcess, eventually, produce, read_topic
from tests.truth import LEDGER, MEASURES, Aggregate, Produced, Truth

SESSION = "6 s"  # the shortest session timeout that a broker takes by default
MINUTE = 60_000
START = 1_700_000_000_000 // MINUTE * MINUTE  # ms
AGGREGATES = (
    Aggregate("per_key", MINUTE, MINUTE, ("key",)),
    Aggregate("overall", 2 * MINUTE, MINUTE, ("colour",)),
)
_COLOURS = ("red", "green", "blue", "white")
Record = dict[str, Any]


def events(random: Random, count: int, *, first: int = 0, bad: bool = True, keys: int = 40) -> Iterator[Record]:
    """Records with the `Produced` that is meant by each, under "meant"; event time goes on by 25 ms a record.

    With `bad`: 1 % malformed, 1 % refused by the rule, 1 % a little and 1 % much too late, some tombstones.
    """
    for number in range(first, first + count):
        event_time = START + number * 25 - random.randrange(3000)
        person, chance = f"p{random.randrange(keys)}", random.random() if bad else 1.0
        meant = Produced(
            "event", -1, -1, person, number, person, random.choice(_COLOURS), random.randrange(1001), event_time
        )
        if chance < 0.01:
            yield record(replace(meant, kind="malformed"), value=b'{"id": ')
        elif chance < 0.02:
            yield record(replace(meant, amount=-1))
        elif chance < 0.03:
            yield record(replace(meant, event_time=event_time - MINUTE))
        elif chance < 0.04:
            yield record(replace(meant, event_time=event_time - 10 * MINUTE))
        elif chance < 0.045:
            yield record(replace(meant, kind="tombstone"), value=None)
        else:
            yield record(meant)


def record(meant: Produced, *, value: bytes | None = b"", **options: Any) -> Record:
    """A record that says what it means; `value` in its place."""
    fields = ("id", "person", "colour", "amount", "event_time")
    body = json.dumps({name: getattr(meant, name) for name in fields}).encode() if value == b"" else value
    return {"key": None if meant.key is None else meant.key.encode(), "value": body, "meant": meant, **options}


@dataclass
class Scene:
    """One pipeline with its own topics and tables. `settings` are laid over the pipeline file's top level."""

    servers: str
    url: str | None
    directory: Path
    partitions: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    aggregates: tuple[Aggregate, ...] = AGGREGATES
    topic_config: Mapping[str, str] = field(default_factory=dict)
    delay: int = 5000
    lateness: int = 0
    dedupe: bool = False
    produced: list[Produced] = field(default_factory=list)
    connection: psycopg.Connection | None = None

    def __post_init__(self) -> None:
        self.id = f"p-{uuid.uuid4().hex[:8]}"
        self.topic = f"{self.id}.source"
        self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        new = NewTopic(self.topic, self.partitions, 1, config={"retention.ms": "-1", **self.topic_config})
        for done in self.admin.create_topics([new]).values():
            done.result(30)
        sinks: list[dict[str, Any]] = [{"type": "kafka"}]
        if self.url is not None:
            sinks.append({"type": "postgres", "url": self.url})
        self.pipeline: dict[str, Any] = {
            "pipelineId": self.id,
            "kafka": {"bootstrapServers": self.servers, "sessionTimeout": SESSION},
            "source": {"topics": [self.topic], "key": {"column": "key"}},
            "schema": [
                {"name": "id", "type": "bigint", "nullable": False},
                {"name": "person", "type": "string"},
                {"name": "colour", "type": "string"},
                {"name": "amount", "type": "bigint"},
                {"name": "event_time", "type": "timestamp", "unit": "ms", "nullable": False},
            ],
            "eventTime": {
                "column": "event_time",
                "delay": f"{self.delay} ms",
                "allowedLateness": f"{self.lateness} ms",
                "idleTimeout": "1 second",
            },
            "rules": [{"type": "range", "column": "amount", "min": 0, "max": 1000}],
            "aggregations": [_aggregation(aggregate) for aggregate in self.aggregates],
            "sinks": sinks,
            "worker": {"maxBatchRecords": 500},
            **self.settings,
        }

    def worker(self, name: str = "worker", **settings: Any) -> WorkerProcess:
        """A worker on this pipeline, not yet started; `settings` go over the pipeline's."""
        return WorkerProcess({**self.pipeline, **settings}, self.directory, name)

    def feed(self, records: Iterable[Record], **options: Any) -> None:
        """Produce, and remember where each record went."""
        given = list(records)
        placed = produce(
            self.servers, self.topic, ({k: v for k, v in r.items() if k != "meant"} for r in given), **options
        )
        self.remember(given, placed)

    def remember(self, given: Iterable[Record], placed: Iterable[tuple[int, int]]) -> None:
        for one, (partition, offset) in zip(given, placed, strict=True):
            self.produced.append(replace(one["meant"], partition=partition, offset=offset))

    def truth(self) -> Truth:
        return Truth(self.produced, self.aggregates, delay=self.delay, lateness=self.lateness, dedupe=self.dedupe)

    def read(self, name: str, **options: Any) -> list[Message]:
        return read_topic(self.servers, f"{self.id}{name}", **options)

    def rows(self, sql: str) -> list[Any]:
        """What the database answers; over one connection, since tests ask ten times a second, and connecting is work."""
        assert self.url is not None
        if self.connection is not None:
            try:
                return self._query(self.connection, sql)
            except psycopg.OperationalError:  # the server has been away
                self.connection.close()
        self.connection = psycopg.connect(self.url, autocommit=True, prepare_threshold=None)
        return self._query(self.connection, sql)

    def _query(self, connection: psycopg.Connection, sql: str) -> list[Any]:
        return connection.execute(sql).fetchall()  # type: ignore[call-overload,no-any-return]  # the SQL is built here: no literal string

    def applied(self) -> int:
        """How many records the database has accounted for; 0 before there are tables."""
        try:
            return int(self.rows("SELECT coalesce(sum(read), 0) FROM tidegate_partitions")[0][0])
        except psycopg.errors.UndefinedTable:
            return 0

    def committed(self) -> dict[int, int]:
        """The group's offsets: for monitoring, since the worker starts from its state."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": self.id})
        try:
            asked = [TopicPartition(self.topic, partition) for partition in range(self.partitions)]
            return {found.partition: found.offset for found in consumer.committed(asked, timeout=10)}
        finally:
            consumer.close()

    def check(self, within: float = 30.0, *, final: bool = True) -> None:
        """Everything that came out is the truth, within so many seconds. The last difference is the error."""
        truth = self.truth()
        eventually(lambda: self._check(truth, final=final), within)

    def _check(self, truth: Truth, *, final: bool) -> None:
        if self.url is not None:
            self.check_database(truth)
        for name in truth.aggregates:
            self.check_results(truth, name, final=final)
        self.check_dead_letters(truth)
        self.check_late(truth)

    def check_database(self, truth: Truth) -> None:
        """Ledger, late windows, and every row of every result view."""
        ledger = {row[0]: dict(zip(LEDGER, row[1:], strict=True)) for row in self.rows(
            f"SELECT partition, {', '.join(LEDGER)} FROM tidegate_partitions WHERE read > 0"
        )}  # fmt: skip
        assert ledger == truth.ledger()
        assert all(row["read"] == sum(row.values()) - row["read"] for row in ledger.values())
        late = {(name, ms(start), ms(end)): missing for name, start, end, missing in self.rows(
            "SELECT aggregation, window_start, window_end, sum(missing) FROM tidegate_late_windows GROUP BY 1, 2, 3"
        )}  # fmt: skip
        assert late == truth.late_windows()
        for name, aggregate in truth.aggregates.items():
            keys = ["window_start", "window_end", *aggregate.group]
            columns = ", ".join(f'"{column}"' for column in (*keys, *MEASURES))
            found = {
                (ms(row[0]), ms(row[1]), *row[2 : len(keys)]): row[len(keys) :]
                for row in self.rows(f"SELECT {columns} FROM {name}")
            }
            compare(f"view {name}", truth.results(name), found)

    def check_results(self, truth: Truth, name: str, *, final: bool, engines: int = 1) -> None:
        """The newest result of each window and group is right; all are final at the end. Revisions never go back in the topic,
        unless several engines have written it: then the largest one is the newest."""
        newest: dict[tuple[Any, ...], Any] = {}
        for message in self.read(f".{name}"):
            document = message.json
            window, group = document["window"], document["group"]
            key = (ms(window["start"]), ms(window["end"]), *(group[g] for g in truth.aggregates[name].group))
            before = newest.get(key)
            if before is None or before["revision"] <= document["revision"]:
                newest[key] = document
            else:
                assert engines > 1, (before, document)
        found = {key: tuple(document["values"][m] for m in MEASURES) for key, document in newest.items()}
        compare(f"results of {name}", truth.results(name), found)
        if final:
            assert [key for key, document in newest.items() if not document["final"]] == [], f"{name}: not final"

    def check_dead_letters(self, truth: Truth) -> None:
        """Exactly the right records, each once, whatever was tried and aborted on the way."""
        letters = self.read(".dlq")
        assert_once(letters, "tidegate.dlq.id")
        origins = [[m.header(f"tidegate.dlq.origin.{of}") or -1 for of in ("partition", "offset")] for m in letters]
        places = {(int(partition), int(offset)) for partition, offset in origins}
        assert_same("dead letters", truth.dead_letters(), places)

    def check_late(self, truth: Truth) -> None:
        """The late topic has the late records, each once."""
        records = self.read(".late")
        assert_once(records, "tidegate.late.id")
        ids = {m.header("tidegate.late.id") for m in records}
        expected = {f"{self.topic}-{p}-{o}" for p, o in truth.late()}
        expected |= {f"{self.topic}-{p}-{o}-event_time" for p, o in truth.partly_late()}
        assert_same("late records", expected, ids)

    def delete(self) -> None:
        """Delete the pipeline's topics, and leave the database."""
        if self.connection is not None:
            self.connection.close()
        mine = [name for name in self.admin.list_topics(timeout=10).topics if name.startswith(self.id)]
        for done in self.admin.delete_topics(mine).values():
            done.exception(30)


@contextmanager
def scene(servers: str, url: str | None, directory: Path, **options: Any) -> Iterator[Scene]:
    """A scene whose topics are deleted at the end."""
    made = Scene(servers, url, directory, **options)
    try:
        yield made
    finally:
        with suppress(KafkaException):  # a test's own broker may be away: that must not hide why the test failed
            made.delete()


def _aggregation(aggregate: Aggregate) -> dict[str, Any]:
    hopping = {"type": "hopping", "hop": f"{aggregate.hop} ms"} if aggregate.hop != aggregate.size else {}
    measures = {"total": "sum", "mean": "avg", "low": "min", "high": "max"}
    return {
        "name": aggregate.name,
        "window": {"size": f"{aggregate.size} ms", **hopping},
        "groupBy": list(aggregate.group),
        "measures": {
            "n": "count",
            **{name: {"type": kind, "of": "amount"} for name, kind in measures.items()},
            "newest": {"type": "last", "of": "id"},
            "people": {"type": "approxDistinct", "of": "person"},
        },
    }


def ms(moment: Any) -> int:
    """Milliseconds of a database's or a result's moment."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return round(moment.timestamp() * 1000)


def compare(what: str, expected: Mapping[Any, tuple[Any, ...]], found: Mapping[Any, tuple[Any, ...]]) -> None:
    assert_same(what, set(expected), set(found))
    wrong = {key: (row, found[key]) for key, row in expected.items() if not all(map(_near, row, found[key]))}
    assert not wrong, (
        f"{what}: {len(wrong)} of {len(expected)} differ (expected, found): {dict(list(wrong.items())[:3])}"
    )


def assert_same(what: str, expected: set[Any], found: set[Any]) -> None:
    missing, extra = expected - found, found - expected
    assert missing | extra == set(), (
        f"{what}: of {len(expected)} {len(missing)} are missing, such as {sorted(missing, key=str)[:3]}, "
        f"{len(extra)} too many, such as {sorted(extra, key=str)[:3]}"
    )


def assert_once(messages: Iterable[Message], header: str) -> None:
    twice = [found for found, times in Counter(m.header(header) for m in messages).items() if times > 1]
    assert not twice, f"{header} more than once: {twice[:3]}"


def _near(expected: Any, found: Any) -> bool:
    if isinstance(expected, float) and found is not None:
        return abs(expected - float(found)) <= 1e-9 * max(abs(expected), 1.0)
    return bool(expected == found)
