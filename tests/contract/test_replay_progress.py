"""What Kafka knows of a replay job's progress: whose word counts, and what is done when it has forgotten it."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka.admin import AdminClient

from dlq.replay import jobs, run, sender
from dlq.replay.jobs import LeaseLost
from tests.contract.replay_scene import ReplayScene

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def left_for_a_week(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch, job: jobs.Job) -> jobs.Job:
    """The job in the hands of another agent, once Kafka has forgotten its progress."""
    admin = AdminClient({"bootstrap.servers": replays.kafka.bootstrap_servers})
    for done in admin.delete_consumer_groups([sender.group_of(job.id)]).values():
        done.result(30)
    return replays.taken_over(monkeypatch)


def test_an_overtaken_agent_does_not_file_that_nothing_was_sent(replays: ReplayScene) -> None:
    """It was paused before it did; were it filed behind what the next owner has sent, that would be sent again."""
    job = uuid.uuid4().hex

    def opened() -> sender.Sender:
        return sender.Sender(replays.pipeline.kafka, job, replays.source, max_bytes=1_000_000)

    overtaken, owner = opened(), opened()
    owner.send([], 7)
    with pytest.raises(LeaseLost):
        overtaken.make_known()
    third = opened()
    assert (third.known, third.position) == (True, 7)
    for one in (owner, third):
        one.close()


@pytest.mark.parametrize("max_bytes", [2**31 - 1, 500])
def test_topics_that_take_more_or_less_than_the_client_can_be_told(replays: ReplayScene, max_bytes: int) -> None:
    """Their `max.message.bytes` may be as large as can be: a job that goes to one does not stop for that."""
    opened = sender.Sender(replays.pipeline.kafka, uuid.uuid4().hex, replays.source, max_bytes=max_bytes)
    opened.close()


def test_a_job_that_has_sent_all_needs_no_progress(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes it over then only follows its letters."""
    replays.letters(range(3))
    job = replays.job(canary=False)
    replays.send_a_chunk(job)
    found = replays.carry_out(left_for_a_week(replays, monkeypatch, job))
    assert (found.state, replays.outcomes(found)) == ("done", {"ok": 3})
    assert sum(replays.sent().values()) == 3


def test_what_is_resumed_is_what_it_had_stopped_for(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of which Kafka knows nothing goes on, and stops all the same when too many fail; resumed in spite of that it goes
    on, and stops all the same where Kafka has forgotten it once more."""
    monkeypatch.setattr(run, "_CHUNK", 4)
    monkeypatch.setattr(run, "_ENOUGH", 4)
    monkeypatch.setattr(run, "_AHEAD", 1)
    replays.letters(range(20))
    job = replays.job(canary=False)
    replays.send_a_chunk(job)

    def resumed() -> jobs.Job:
        replays.index.jobs.release(replays.index.jobs.get(job.id))
        replays.index.jobs.resume(job.id, actor="ada")
        claimed = replays.index.jobs.claim("me")
        assert claimed is not None
        return claimed

    found = replays.carry_out(left_for_a_week(replays, monkeypatch, job))
    assert (found.state, "letters 5 to 8 may have been sent" in found.reason) == ("stopped", True)
    found = replays.carry_out(resumed(), refuses=lambda m: True)
    assert (found.state, "failed again" in found.reason, found.sent < 20) == ("stopped", True, True)
    replays.send_a_chunk(resumed())
    found = replays.carry_out(left_for_a_week(replays, monkeypatch, found))
    assert (found.state, "may have been sent" in found.reason) == ("stopped", True)
