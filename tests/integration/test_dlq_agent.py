"""The agent of dead letters and the commands on its index, over a real broker and a real database."""

from __future__ import annotations

import csv
import io
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer.testing

from dlq.index.filters import LetterFilter
from dlq.service import open_index
from tests.harness import WorkerProcess, produce, read_topic, running, wait_until
from tests.providers.kafka import KafkaTopics
from tests.providers.postgres import Database
from tests.unit.dlq.dead_letters import letter as made
from tests.unit.dlq.dead_letters import rejection, written
from tests.unit.dlq.test_foreign_dead_letters import FIXTURES
from tidegate.cli.main import app as tidegate
from tidegate.config.loading import load_pipeline
from tidegate.headers import Headers
from tidegate.stages.batch import Reason

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202eevil\u202c =cmd|' /C calc'!A0"


def letter(offset: int, *, message: str = "expected bigint, found 'x'", value: bytes = b'{"n": 1}') -> dict[str, Any]:
    """Our own dead letter, to be produced."""
    failed = rejection(offset, reasons=(Reason("WrongType", message, rule="sane" if offset % 3 == 0 else None),))
    key, body, headers = written(made(offset, failed=failed, value=value, key=b"=1+1"))
    return {"key": key, "value": body, "headers": headers}


def foreign(headers: Headers) -> dict[str, Any]:
    return {"value": b'{"n": 2}', "headers": headers}


class Scene:
    """Two dead-letter topics, a pipeline file, an index in a fresh database, and the agent."""

    def __init__(self, kafka: KafkaTopics, postgres: Database, folder: Path, **settings: Any) -> None:
        self.kafka = kafka
        self.own, self.other = kafka.topic(partitions=3), kafka.topic(partitions=2)
        document = {
            "pipelineId": f"p-{self.own}",
            "kafka": {"bootstrapServers": kafka.bootstrap_servers, "sessionTimeout": "6 seconds"},
            "errorHandling": {
                "deadLetterQueue": {"type": "kafka", "config": {"topic": self.own}},
                "retry": {"initialDelayMs": 50, "maxDelayMs": 200},
            },
            "deadLetters": {"index": postgres.url, "topics": [self.other], **settings},
        }
        self.agent = WorkerProcess(document, folder, "agent", app="dlq.app")
        self.set(port=self.agent.port)

    def set(self, **settings: Any) -> None:
        """Settings of the block `deadLetters`, into the file."""
        self.agent.pipeline["deadLetters"] |= settings
        port = self.agent.port
        self.agent.__post_init__()
        self.agent.port = port

    def write(self, topic: str, records: list[dict[str, Any]]) -> None:
        produce(self.kafka.bootstrap_servers, topic, records)

    def indexed(self) -> Counter[tuple[str, int, int]]:
        """Place → how many letters of the index are from there."""
        with open_index(load_pipeline(self.agent.file)) as index:
            letters = index.reader.every(LetterFilter())
            return Counter((x["dlq_topic"], x["dlq_partition"], x["dlq_offset"]) for x in letters)

    def written(self) -> Counter[tuple[str, int, int]]:
        servers = self.kafka.bootstrap_servers
        found = [m for topic in (self.own, self.other) for m in read_topic(servers, topic)]
        return Counter((m.topic, m.partition, m.offset) for m in found)

    def wait_indexed(self, timeout: float = 60.0) -> None:
        wanted = self.written().total()
        wait_until(lambda: self._number() == wanted, timeout, f"{wanted} letters indexed\n{self.agent.tail()}")
        assert self.indexed() == self.written()

    def _number(self) -> int:
        try:
            with open_index(load_pipeline(self.agent.file)) as index:
                return int(index.reader.stats()["letters"])
        except Exception:  # the tables are being made
            return -1

    def run(self, command: str, *arguments: str, code: int = 0) -> typer.testing.Result:
        result = typer.testing.CliRunner().invoke(tidegate, ["dlq", command, str(self.agent.file), *arguments])
        assert result.exit_code == code, result.output
        return result

    def json(self, command: str, *arguments: str) -> Any:
        return json.loads(self.run(command, "--json", *arguments).stdout)


@pytest.fixture
def make(kafka: KafkaTopics, postgres: Database, tmp_path: Path) -> Callable[..., Scene]:
    return lambda **settings: Scene(kafka, postgres, tmp_path, **settings)


def test_from_the_topics_to_a_closed_group(make: Callable[..., Scene]) -> None:
    """Our own letters and those of every other tool are indexed, found, acknowledged, resolved, and reopened by the next
    one; SIGTERM ends the agent with 0, and before there is an index the commands say what to do."""
    scene = make(masking=[{"path": "card"}], expiryWarning="2 days")
    assert "tidegate dlq agent" in scene.run("audit", code=2).stderr
    scene.write(scene.own, [letter(offset, value=b'{"n": 1, "card": "4111"}') for offset in range(30)])
    scene.write(scene.own, [letter(30, message=HOSTILE)])
    scene.write(scene.other, [foreign(fixture.headers) for fixture in FIXTURES.values()])
    with running(scene.agent):
        scene.wait_indexed()
        scene.agent.wait_ready()
        assert scene.agent.metric("tidegate_dlq_indexed_records_total") == 31 + len(FIXTURES)

        groups = scene.json("groups")
        assert sum(group["count"] for group in groups) == 31 + len(FIXTURES)
        biggest = groups[0]
        assert biggest["count"] == 20
        assert biggest["topic"] == {scene.own: 20}
        found = scene.json("list", "--group", biggest["group"], "--field", "card=***", "--limit", "5")
        assert (found["count"], len(found["letters"])) == (20, 5)
        more = scene.json("list", "--group", biggest["group"], "--after", found["next"], "--limit", "50")
        assert {x["id"] for x in found["letters"]}.isdisjoint({x["id"] for x in more["letters"]})
        assert len(more["letters"]) == 15
        assert scene.json("list", "bigint", "--rule", "sane")["count"] == 10
        assert scene.json("stats")["letters"] == 31 + len(FIXTURES)

        scene.run("ack", biggest["group"], "--note", "looking")
        assert scene.json("groups", biggest["group"])["state"] == "acknowledged"
        assert "20 dead letters closed" in scene.run("resolve", biggest["group"], "--note", "mended", "--yes").output
        assert biggest["group"] not in [group["group"] for group in scene.json("groups")]
        scene.write(scene.own, [letter(31)])
        scene.wait_indexed()
        again = scene.json("groups", biggest["group"])
        assert (again["state"], again["open"], again["reopened"], again["note"]) == ("open", 1, 1, "mended")
        assert [entry["action"] for entry in again["history"]] == ["reopen", "resolve", "acknowledge"]
        assert "there is no group" in scene.run("ack", "nothing", code=2).stderr

        with open_index(load_pipeline(scene.agent.file)) as index:
            row = index.reader.letter("flights-1-1")
            assert row is not None
            raw = index.reveal(row, actor="ada", reason="to compare")
            assert raw is not None
            assert (row["payload"], raw.envelope.value) == ({"n": 1, "card": "***"}, b'{"n": 1, "card": "4111"}')
            assert index.reveal({**row, "dlq_offset": 10_000}, actor="ada", reason="to compare") is None
        assert scene.agent.stop() == 0


def test_hostile_letters_are_harmless_in_a_terminal_and_in_a_spreadsheet(make: Callable[..., Scene]) -> None:
    """No command prints a control character or a mark that turns the reading direction; no cell begins a formula."""
    scene = make()
    value = json.dumps({"n": HOSTILE, "huge": "x" * 10_000}).encode()
    scene.write(scene.own, [letter(0, message=HOSTILE, value=value), letter(1, value=b"\x1b[31m\xff\x00")])
    with running(scene.agent):
        scene.wait_indexed()
    (group,) = [group for group in scene.json("groups") if group["count"] and "evil" in group["message"]]
    commands = [
        ("groups",), ("groups", "--json"), ("groups", group["group"]), ("groups", group["group"], "--json"), ("list",),
        ("list", "--json"), ("stats",), ("stats", "--json"), ("export",), ("export", "--json"),
        ("show", "flights-1-0"), ("show", "flights-1-0", "--json"), ("show", "flights-1-1"),
    ]  # fmt: skip
    for command in commands:
        printed = scene.run(*command).output
        assert not [
            c for c in printed if (ord(c) < 32 and c not in "\r\n") or 127 <= ord(c) < 160 or c in "\u202e\u202c"
        ]
    rows = list(csv.DictReader(io.StringIO(scene.run("export").stdout)))
    assert {row["key"] for row in rows} == {"'=1+1"}
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]
    lines = [json.loads(line) for line in scene.run("export", "--json").stdout.splitlines()]
    assert {line["id"] for line in lines} == {"flights-1-0", "flights-1-1"}
    assert next(line["value"]["n"] for line in lines if line["id"] == "flights-1-0") == HOSTILE


@pytest.mark.chaos
def test_killed_at_random(make: Callable[..., Scene], seed: int, chaos: str) -> None:
    """SIGKILL at random points while letters come in: the index is the topic,
    each letter once, with its counters."""
    rng, scene = random.Random(seed), make()
    rounds, number = (3 if chaos == "short" else 30), 0
    with running(scene.agent):
        for _ in range(rounds):
            records = [letter(number + i) for i in range(rng.randrange(500, 4000))]
            number += len(records)
            scene.write(scene.own, records)
            scene.write(scene.other, [foreign([("original_partition", b"1")]) for _ in range(rng.randrange(200))])
            time.sleep(rng.uniform(0.0, 6.0))
            scene.agent.kill()
            scene.agent.start()
        scene.wait_indexed(120)
    with open_index(load_pipeline(scene.agent.file)) as index:
        stats = index.reader.stats()
        groups = index.reader.groups(limit=1000)
    total = scene.written().total()
    assert stats["letters"] == stats["open"] == total
    assert sum(group["count"] for group in groups) == total
    assert stats["topics"][scene.own] == number


def test_the_database_goes_away(make: Callable[..., Scene], postgres: Database) -> None:
    """An outage of the index's database is waited out: nothing is skipped, and the agent lives on."""
    scene = make()
    scene.write(scene.own, [letter(offset) for offset in range(100)])
    with running(scene.agent):
        scene.wait_indexed()
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND application_name = 'tidegate'"
            )
        scene.write(scene.own, [letter(offset) for offset in range(100, 200)])
        scene.wait_indexed()
        assert scene.agent.running


def test_a_topic_that_does_not_exist(make: Callable[..., Scene]) -> None:
    """The agent ends with 2, and says which topic it misses and where it was named."""
    scene = make()
    scene.set(topics=["no-such-topic"])
    with running(scene.agent):
        assert scene.agent.wait(60) == 2
    assert "no-such-topic" in scene.agent.tail()
    assert "deadLetters.topics" in scene.agent.tail()
