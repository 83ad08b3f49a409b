"""The topic that a job sends to is deleted while it is at work."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from dlq.replay import follow, sender
from dlq.replay.deleted import DeletedTopics
from dlq.replay.run import Run
from tests.contract.replay_scene import ReplayScene
from tests.harness import produce
from tests.providers.kafka import KafkaTopics
from tidegate.errors import ConfigError

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_DELETED", 0.0)


def other_target(replays: ReplayScene, kafka: KafkaTopics) -> str:
    """A topic that may be replayed to, and that a group reads which has read nothing yet."""
    topic = kafka.topic()
    replays.configure(replayTargets=[{"topic": topic, "group": f"{topic}-readers"}])
    return topic


def delete(kafka: KafkaTopics, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for done in admin.delete_topics([topic]).values():
        done.result(30)


def committed(kafka: KafkaTopics, topic: str, offset: int) -> None:
    """By the readers of `other_target`."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": f"{topic}-readers"})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def unread(run: Run) -> None:
    """Some turns of a job all of whose letters are sent: none is settled."""
    for _ in range(5):
        assert run.turn() is not None
    assert run.job.chunks


def test_what_nobody_has_read_there_stays_open(
    replays: ReplayScene, kafka: KafkaTopics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job stops and says so, also in the hands of an agent that has never seen the topic, and the letters can be replayed
    elsewhere. As long as the controller knows the topic it waits, whatever a broker that has just started says."""
    topic = other_target(replays, kafka)
    replays.letters(range(3))
    run = replays.start(replays.job(to=topic, canary=False))
    with monkeypatch.context() as patched:
        patched.setattr(DeletedTopics, "_unknown", lambda self, topics: sorted(topics))
        unread(run)
    unread(run)
    run.close()
    delete(kafka, topic)
    job = replays.carry_out(run.job)
    assert (job.state, job.sent, job.chunks, replays.outcomes(job)) == ("stopped", 3, (), {"gone": 3})
    assert f"'{topic}' was deleted" in job.reason
    (result, *_) = replays.index.jobs.results(job.id, outcome="gone")
    assert (
        result["detail"]
        == f"topic '{topic}', to which it was sent, was deleted; whether it had been read there is not known"
    )
    assert replays.open() == 3
    assert replays.outcomes(replays.carry_out(replays.job(to=replays.source))) == {"ok": 3}
    assert replays.open() == 0


def test_what_went_to_other_topics_is_followed(replays: ReplayScene, kafka: KafkaTopics) -> None:
    """Of a chunk that went to several topics only what was sent to the deleted one is not accepted, also when that has been made
    anew and is read. The job stops, and can be resumed."""
    topic = other_target(replays, kafka)
    replays.letters(range(4))
    replays.letters(range(10, 13), topic=topic)
    job = replays.job(canary=False, max_failures=1.0)
    run = replays.start(job)
    run.turn()
    assert run.job.sent == job.total
    delete(kafka, topic)
    kafka.topic(name=topic)
    produce(kafka.bootstrap_servers, topic, [{"value": b"another"}])
    committed(kafka, topic, 1)
    found = replays.go_on(run, refuses=lambda m: m.json["n"] == 3)
    assert (found.state, replays.outcomes(found)) == ("stopped", {"ok": 3, "failed_again": 1, "gone": 3})
    gone = {result["id"] for result in replays.index.jobs.results(job.id, outcome="gone")}
    assert {id_.rsplit("-", 2)[0] for id_ in gone} == {topic}
    replays.index.jobs.release(found)
    replays.index.jobs.resume(job.id, actor="ada")
    claimed = replays.index.jobs.claim("me")
    assert claimed is not None
    assert replays.carry_out(claimed).state == "done"


def test_a_job_stops_that_cannot_send(
    replays: ReplayScene, kafka: KafkaTopics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no outage, which would be waited for as long as the job lasts; and none can begin."""
    monkeypatch.setattr(sender, "_TIMEOUT", 3.0)
    topic = other_target(replays, kafka)
    replays.letters(range(3))
    job = replays.job(to=topic, canary=False)
    run = replays.start(job)
    run._recovered()
    delete(kafka, topic)
    with pytest.raises(ConfigError, match=f"(?s)was deleted.*{topic}"):
        run.turn()
    run.close()
    with pytest.raises(ConfigError, match=f"(?s)does not exist.*{topic}"):
        replays.carry_out(job)
    assert replays.outcomes(job) == {}
    assert replays.open() == 3
