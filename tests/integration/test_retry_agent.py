"""Delayed retries on a real broker: when they go back, once each, whoever dies; and the whole way with a worker."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from dlq.retry.agent import RetryAgent
from tests.harness import ROOT, Message, WorkerProcess, produce, read_topic, running, wait_until
from tests.providers.kafka import KafkaTopics
from tests.reference import Record
from tests.scene import Scene, events
from tests.unanswered import unanswered_once
from tests.unit.worker.pieces import partition, plan_of
from tests.unit.worker.test_turns import CALLS
from tidegate.clock import SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import retry_topics
from tidegate.local.kafka import EmbeddedKafka
from tidegate.record import TopicPartition

pytestmark = [pytest.mark.slow, pytest.mark.kafka]


class Waiting:
    """A pipeline's source topic and its retry topics, and what waits in them."""

    def __init__(self, kafka: KafkaTopics, delays: tuple[str, ...] = ("1s",), partitions: int = 2) -> None:
        self.kafka, self.source = kafka, kafka.topic(partitions)
        self.id = f"p-{self.source}"
        self.topics = [kafka.topic(partitions, name=f"{self.id}..retry.{delay}") for delay in delays]
        self.document = {
            "pipelineId": self.id,
            "kafka": {"bootstrapServers": kafka.bootstrap_servers, "sessionTimeout": "6 s"},
            "source": {"topics": [self.source]},
            "errorHandling": {"retryTopics": {"delays": ["1 second"]}},
        }

    def wait(self, numbers: range, *, due: float, topic: int = 0, **headers: bytes) -> None:
        """Records with these keys, due at that time (s since the epoch), in the partitions of their number."""

        def record(number: int) -> dict[str, Any]:
            partition = number % 2
            says = {
                "tidegate.retry.of": b"x-0-%d" % number,
                "tidegate.retry.attempt": b"1",
                "tidegate.retry.due": b"%d" % int(due * 1000),
                "tidegate.retry.topic": self.source.encode(),
                "tidegate.retry.partition": b"%d" % partition,
                **headers,
            }
            return {"key": b"%d" % number, "value": b"\xff%d" % number, "partition": partition, "headers": says}

        produce(self.kafka.bootstrap_servers, self.topics[topic], map(record, numbers))

    def back(self) -> list[Message]:
        return read_topic(self.kafka.bootstrap_servers, self.source)

    def numbers(self) -> Counter[int]:
        return Counter(int(message.key or b"") for message in self.back())

    @contextmanager
    def agent(self) -> Iterator[RetryAgent]:
        agent = RetryAgent(Pipeline.model_validate(self.document))
        agent.start()
        try:
            yield agent
        finally:
            agent.stop(10)


def test_when_they_are_due(kafka: KafkaTopics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes back to its partition when it is due and not before, byte for byte and in the order of its partition; those
    of a delay that the file does not have any more too; what is forged, or not ours, goes nowhere. Meanwhile the agent polls:
    one that waits for longer than `max.poll.interval.ms` keeps its partitions."""
    monkeypatch.setattr("dlq.retry.agent.Consumer", lambda given: Consumer({**given, "max.poll.interval.ms": 6000}))
    lost = list[object]()
    monkeypatch.setattr(RetryAgent, "_revoked", lambda *given: lost.append(given))
    scene, now = Waiting(kafka, ("1s", "7m")), time.time()
    scene.wait(range(10), due=now - 5)
    scene.wait(range(100, 110), due=now + 9)
    scene.wait(range(200, 204), due=now, topic=1)
    scene.wait(range(300, 302), due=now, topic=1, **{"tidegate.retry.topic": b"elsewhere"})
    scene.wait(range(302, 304), due=now, topic=1, **{"tidegate.retry.partition": b"7"})
    produce(kafka.bootstrap_servers, scene.topics[1], [{"value": b"?", "key": b"400"}])
    scene.wait(range(204, 206), due=now, topic=1)
    with scene.agent():
        early = Counter([*range(10), *range(200, 206)])
        wait_until(lambda: scene.numbers() == early, 20, "what is due")
        assert time.time() < now + 9
        wait_until(lambda: len(scene.back()) > early.total(), 20, "the rest")
        assert time.time() >= now + 9
        wait_until(lambda: scene.numbers() == early + Counter(range(100, 110)), 20, "the rest")
        assert not lost
    for message in scene.back():
        number = int(message.key or b"")
        assert (message.partition, message.value) == (number % 2, b"\xff%d" % number)
        assert {name for name, _ in message.headers} == {"tidegate.retry.of", "tidegate.retry.attempt"}
    for number in range(2):
        for group in (range(10), range(100, 110)):
            mine = [int(m.key or b"") for m in scene.back() if m.partition == number and int(m.key or b"") in group]
            assert mine == sorted(mine)


def test_a_wait_outlives_its_agent(kafka: KafkaTopics) -> None:
    """An agent that ends while records wait forgets none and sends none early; two that share the partitions send each
    record once."""
    scene, now = Waiting(kafka), time.time()
    scene.wait(range(50), due=now + 4)
    with scene.agent():
        time.sleep(1.5)
    assert scene.back() == []
    with scene.agent(), scene.agent():
        wait_until(lambda: len(scene.back()) == 50, 30, "all")
        scene.wait(range(50, 80), due=time.time() - 1)
        wait_until(lambda: len(scene.back()) >= 80, 30, "more")
    assert scene.numbers() == Counter(range(80))


def test_no_answer_when_partitions_come(kafka: KafkaTopics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka does not say in time how far the group is: it is asked again, and nothing is left waiting or sent twice."""
    monkeypatch.setattr("dlq.retry.agent.Consumer", unanswered := unanswered_once())
    scene = Waiting(kafka)
    scene.wait(range(20), due=time.time())
    with scene.agent():
        wait_until(lambda: len(scene.back()) >= 20, 30, "all")
    assert unanswered.asked > 1
    assert scene.numbers() == Counter(range(20))


@pytest.mark.chaos
def test_killed_anywhere(kafka: KafkaTopics, tmp_path: Path, chaos: str, seed: int) -> None:
    """However often the agent is killed, each record goes back once."""
    scene, random = Waiting(kafka), Random(seed)
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(scene.document))
    count = 0
    for _ in range(10 if chaos == "long" else 1):
        before = len(scene.back())
        process = subprocess.Popen([sys.executable, "-c", _SEND, str(file)], cwd=ROOT)
        for _ in range(4):
            scene.wait(range(count, count + 400), due=time.time() + random.random())
            count += 400
        wait_until(lambda: len(scene.back()) > before, 30, "it sends", every=0.01)  # noqa: B023  # waited for before `before` changes
        time.sleep(random.random() / 3)
        process.kill()
        process.wait()
    with scene.agent():
        wait_until(lambda: len(scene.back()) >= count, 60, f"all {count}")
    assert scene.numbers() == Counter(range(count))


@pytest.mark.chaos
def test_the_broker_goes_away(own_kafka: EmbeddedKafka) -> None:
    """A broker that is killed in the middle of it, and comes back, makes no record go back twice, and none be forgotten."""
    scene = Waiting(KafkaTopics(own_kafka.bootstrap_servers))
    scene.wait(range(3000), due=time.time() - 1)
    scene.wait(range(3000, 3100), due=time.time() + 8)
    with scene.agent():
        wait_until(lambda: bool(scene.back()), 30, "it sends", every=0.01)
        own_kafka.kill()
        time.sleep(1)
        own_kafka.start()
        wait_until(lambda: len(scene.back()) >= 3100, 60, "all")
    assert scene.numbers() == Counter(range(3100))


_SEND = """
import sys, time
from pathlib import Path
from dlq.retry import agent
from tidegate.config.loading import load_pipeline
agent.MOST = 40  # many small transactions
agent.RetryAgent(load_pipeline(Path(sys.argv[1]))).start()
time.sleep(60)
"""


def test_the_order_of_a_key(kafka: KafkaTopics, tmp_path: Path, seed: int) -> None:
    """With `keepOrder` the handler gets each record of a key when the one before it is done with, through real retry topics and
    their agent, over restarts of the partition in between."""
    random, source = Random(seed), kafka.topic(1)
    settings = {"delays": ["100 ms", "200 ms"], "keepOrder": True}
    plan = plan_of(
        pipelineId=f"p-{source}",
        kafka={"bootstrapServers": kafka.bootstrap_servers, "sessionTimeout": "6 s"},
        source={"topics": [source], "key": {"column": "k"}},
        aggregations=[],
        sinks=[],
        handlers=[{"call": "tests.unit.worker.test_turns:stubborn"}],
        errorHandling={"retryTopics": settings, "floodGuard": {"enabled": False}},
    )
    for topic in retry_topics(plan.pipeline):
        kafka.topic(2, name=topic)
    names = [f"{random.choice('abc')}{n}" for n in range(15)]
    values = [{"id": name, "colour": str(random.choice([0, 0, 1, 9])), "amount": 1, "seen": 1} for name in names]
    rows = [{"key": one["id"][:1].encode(), "value": json.dumps(one).encode()} for one in values]
    produce(kafka.bootstrap_servers, source, rows)
    CALLS.clear()
    agent = RetryAgent(plan.pipeline)
    agent.start()
    try:
        with partition(plan, tmp_path / "state", TopicPartition(source, 0), SystemClock()) as p:

            def all_done() -> bool:
                new = [m for m in read_topic(kafka.bootstrap_servers, source) if m.offset > p.state.upto][:7]
                if not new:
                    return p.state.ledger.read > 0 and p.state.lines == b""
                step = p.take(*(Record(m.offset, m.timestamp, m.value, tuple(m.headers), m.key) for m in new))
                for out in step.effects.topics:
                    if out.topic in retry_topics(plan.pipeline):
                        sent = [{"key": k, "value": v, "headers": dict(h)} for k, v, h, _ in out]
                        produce(
                            kafka.bootstrap_servers, out.topic, [{**one, "partition": out.partition} for one in sent]
                        )
                p.restart()
                return False

            wait_until(all_done, 60, "nothing waits any more")
    finally:
        agent.stop(10)
    for key in "abc":
        calls, mine = [name for name in CALLS if name[0] == key], [name for name in names if name[0] == key]
        assert calls == [name for name in mine for _ in range(calls.count(name))]
    ledger = p.state.ledger
    assert ledger.accepted + ledger.dead_lettered == len(names)
    assert Counter(map(CALLS.count, names)) == Counter({"0": 1, "1": 2, "9": 3}[str(one["colour"])] for one in values)


@pytest.mark.postgres
def test_the_whole_way(
    make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Records that a handler takes at the third call come back twice and count; those that it never takes are dead letters
    after the last delay, with three attempts and their first place. The ledger has every step and balances."""
    calls = tmp_path / "calls"
    calls.mkdir()
    monkeypatch.setenv("TIDEGATE_TEST_CALLS", str(calls))
    scene = make_scene(
        settings={
            "handlers": [{"call": "tests.handlers:on_the_third_call"}],
            "errorHandling": {"retryTopics": {"delays": ["500 ms", "1 second"]}, "floodGuard": {"maxRatio": 1}},
        }
    )
    given = list(events(Random(seed), 600, bad=False))
    scene.feed(given)
    later, never = (sum(one["meant"].id % 20 == rest for one in given) for rest in (3, 7))
    worker = scene.worker()
    agent = WorkerProcess({**scene.pipeline, "deadLetters": {"port": 0}}, tmp_path, "agent", app="dlq.app")
    expected = (len(given) - never, never, 2 * (later + never))

    def ledger() -> tuple[int, ...]:
        return tuple(scene.rows("SELECT sum(accepted), sum(dead_lettered), sum(deferred) FROM tidegate_partitions")[0])

    with running(worker):
        wait_until(lambda: scene.applied() >= len(given), 60, f"the first time\n{worker.tail()}")
        with running(agent):  # the worker has made the topics
            wait_until(
                lambda: ledger() == expected, 60, f"{expected} accepted, dead, deferred: {ledger()}\n{agent.tail()}"
            )
            assert agent.stop() == 0
        assert worker.stop() == 0
    assert scene.rows("SELECT sum(n)::int FROM per_key") == [(len(given) - never,)]
    assert scene.rows("SELECT bool_and(read = accepted + dead_lettered + deferred) FROM tidegate_partitions") == [
        (True,)
    ]
    letters = scene.read(".dlq")
    failed = {(m.header("tidegate.dlq.origin.partition"), m.header("tidegate.dlq.origin.offset")) for m in letters}
    first = {(str(p.partition), str(p.offset)) for p in scene.produced if p.id is not None and p.id % 20 == 7}
    assert failed == first
    assert {m.header("tidegate.dlq.attempt") for m in letters} == {"3"}
    assert len(letters) == never


def test_what_a_topic_does_not_take_holds_up_no_other_partition(
    kafka: KafkaTopics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that its topic refuses, or whose topic is gone, waits, and with it those behind it in its partition of the retry
    topic; all others go on, before it and in other partitions. When the topic takes it, they all go back, each once."""
    monkeypatch.setattr("dlq.retry.agent._TIMEOUT", 4.0)
    scene, now = Waiting(kafka, ("1s", "7m")), time.time()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    other = kafka.topic(2)
    scene.document["source"] = {"topics": [scene.source, other]}
    to_other = {"tidegate.retry.topic": other.encode()}

    def takes(size: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, scene.source, incremental_configs=[entry])
        for done in admin.incremental_alter_configs([resource]).values():
            done.result(30)

    takes(30_000)
    scene.wait(range(20), due=now - 5)
    scene.wait(range(20, 21), due=now - 5, filler=Random(0).randbytes(40_000))  # in partition 0
    scene.wait(range(21, 40), due=now - 5)
    scene.wait(range(300, 302), due=now - 5, topic=1, **to_other)
    expected = Counter([*range(20), *range(21, 40, 2)])
    with scene.agent():
        wait_until(lambda: scene.numbers() == expected, 30, "all but those behind it")
        wait_until(lambda: len(read_topic(kafka.bootstrap_servers, other)) == 2, 30, "those of the other topic")
        for done in admin.delete_topics([other]).values():
            done.result(30)
        scene.wait(range(302, 303), due=now, topic=1, **to_other)  # in partition 0
        scene.wait(range(200, 220), due=now, topic=1)
        expected.update(range(201, 220, 2))
        wait_until(lambda: scene.numbers() == expected, 30, "what comes later, in the other partition")
        takes(1_000_000)
        expected.update(range(20, 40, 2))
        wait_until(lambda: scene.numbers() == expected, 30, "what was too large, and those behind it")
        kafka.topic(2, name=other)
        expected.update(range(200, 220, 2))
        wait_until(lambda: scene.numbers() == expected, 30, "those behind the one of the other topic")
        assert [message.key for message in read_topic(kafka.bootstrap_servers, other)] == [b"302"]
