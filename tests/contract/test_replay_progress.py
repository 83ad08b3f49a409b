"""What Kafka knows of a replay job's progress: whose word counts, and what is done when it has forgotten it."""

from __future__ import annotations

import uuid
from contextlib import suppress

import pytest
from confluent_kafka.admin import AdminClient

from dlq.replay import jobs, run, sender
from dlq.replay.jobs import LeaseLost
from tests.contract.replay_scene import Killed, ReplayScene
from tests.harness import Message

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def left_for_a_week(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch, job: jobs.Job) -> jobs.Job:
    """The job in the hands of another agent, once Kafka has forgotten its progress."""
    admin = AdminClient({"bootstrap.servers": replays.kafka.bootstrap_servers})
    for done in admin.delete_consumer_groups([sender.group_of(job.id)]).values():
        done.result(30)
    return replays.taken_over(monkeypatch)


def resumed(replays: ReplayScene, job: jobs.Job) -> jobs.Job:
    """The job in the hands of an agent, once somebody has looked at it."""
    replays.index.jobs.release(replays.index.jobs.get(job.id))
    replays.index.jobs.resume(job.id, actor="ada")
    claimed = replays.index.jobs.claim("me")
    assert claimed is not None
    return claimed


def killed_before_it_is_written_down(replays: ReplayScene, job: jobs.Job) -> None:
    """The next chunk is sent, and only Kafka knows it."""

    def killed(*_: object) -> None:
        raise Killed

    work = replays.start(job)
    work._outcomes.sent = killed  # type: ignore[method-assign]  # it is this one's alone
    with suppress(Killed):
        while True:
            work.turn()
    work.close()


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
    found = replays.carry_out(left_for_a_week(replays, monkeypatch, job))
    assert (found.state, "letters 5 to 8 may have been sent" in found.reason) == ("stopped", True)
    found = replays.carry_out(resumed(replays, job), refuses=lambda m: True)
    assert (found.state, "failed again" in found.reason, found.sent < 20) == ("stopped", True, True)
    replays.send_a_chunk(resumed(replays, job))
    found = replays.carry_out(left_for_a_week(replays, monkeypatch, found))
    assert (found.state, "may have been sent" in found.reason) == ("stopped", True)


@pytest.mark.parametrize(
    ("make_replays", "known_to"),
    [pytest.param("postgres", "the index", marks=pytest.mark.postgres), ("sqlite", "the topic")],
    indirect=["make_replays"],
)
def test_what_had_failed_again_before_it_was_forgotten(
    replays: ReplayScene, monkeypatch: pytest.MonkeyPatch, known_to: str
) -> None:
    """Of letters that may have been sent and are dead letters again it is known that they were. They are not sent once more, and
    not called accepted because the pipeline drops what it had before; wherever it is known, and whoever has read it first."""
    monkeypatch.setattr(run, "_CHUNK", 4)
    replays.letters(range(12))
    job = replays.job(canary=False, max_failures=1.0)
    replays.send_a_chunk(job)
    if known_to == "the index":
        settled = replays.start(replays.index.jobs.get(job.id))
        replays.work()
        monkeypatch.setattr(settled, "_how_many", lambda: 0)
        while settled.job.chunks:
            settled.turn()
        settled.close()
    killed_before_it_is_written_down(replays, replays.index.jobs.get(job.id))

    def refuses(message: Message) -> bool:
        return message.header("tidegate.replay.job") in (f"{job.id}/6", f"{job.id}/8")

    if known_to == "the index":
        replays.work(refuses)
    else:  # which lags behind; the first chunk is still followed, and what follows it reads past these two
        producer = replays.transaction()
        producer.begin_transaction()
        replays.work(refuses, producer)
        producer.commit_transaction(30)
    found = replays.carry_out(left_for_a_week(replays, monkeypatch, job), refuses=refuses)
    assert (found.state, found.sent, replays.outcomes(found)) == ("stopped", 4, {"ok": 4, "failed_again": 2})
    replays.reindex()
    found = replays.carry_out(resumed(replays, job), refuses=refuses)
    assert (found.state, replays.outcomes(found)) == ("done", {"ok": 10, "failed_again": 2})
    assert sorted(replays.sent().values()) == [1] * 10 + [2] * 2
    assert replays.open() == 2


def test_what_fails_again_after_it_was_sent_twice(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker was away as well: it finds both, and drops the second. The letter has failed again, whatever the second did."""
    monkeypatch.setattr(run, "_CHUNK", 4)
    replays.letters(range(4))
    job = replays.job(canary=False, max_failures=1.0)
    killed_before_it_is_written_down(replays, job)
    assert replays.carry_out(left_for_a_week(replays, monkeypatch, job)).state == "stopped"
    found = replays.carry_out(resumed(replays, job), refuses=lambda m: m.json["n"] == 3)
    assert (found.state, replays.outcomes(found)) == ("done", {"ok": 3, "failed_again": 1})
    assert replays.open() == 1
    assert set(replays.sent().values()) == {2}


def test_a_job_sends_again_once(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has resumed a job that Kafka had forgotten has said that those letters may be sent twice, and no others: forgotten
    once more, it stops once more, and what is cancelled then says what it does not know."""
    monkeypatch.setattr(run, "_CHUNK", 4)
    replays.letters(range(12))
    job = replays.job(canary=False)
    killed_before_it_is_written_down(replays, job)
    found = replays.carry_out(left_for_a_week(replays, monkeypatch, job))
    assert (found.state, "letters 1 to 4 may have been sent" in found.reason) == ("stopped", True)
    replays.send_a_chunk(resumed(replays, job))
    assert replays.index.jobs.get(job.id).reason == "resumed although letters may have been sent twice by ada"
    found = replays.carry_out(left_for_a_week(replays, monkeypatch, job))
    assert (found.state, "letters 5 to 8 may have been sent" in found.reason) == ("stopped", True)
    assert len(replays.read(replays.source)) == 8
    replays.index.jobs.cancel(job.id, actor="ada")
    replays.index.jobs.release(replays.index.jobs.get(job.id))
    claimed = replays.index.jobs.claim("me")
    assert claimed is not None
    found = replays.carry_out(claimed)
    details = {r["position"]: r["detail"] for r in replays.index.jobs.results(job.id, outcome="cancelled")}
    assert ["not known" in details[n] for n in range(5, 13)] == [True] * 4 + [False] * 4
