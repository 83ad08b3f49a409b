"""Replay jobs: sent once, whoever dies; canary, pause, rate, cancel. The broker is real, the index in both databases where that
can make a difference, and the worker is played by the scene."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from dlq.index.filters import LetterFilter
from dlq.replay import run, sender
from dlq.replay.jobs import Job, LeaseLost
from tests.contract.replay_scene import Killed, ReplayScene
from tests.harness import produce
from tidegate.errors import BrokerUnavailable, ConfigError, StoreUnavailable
from tidegate.ledger import Ledger

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


both_databases = pytest.mark.parametrize(
    "make_replays", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)


@both_databases
def test_each_once_and_what_became_of_it(replays: ReplayScene) -> None:
    """Canary, then the rest; accepted ones are resolved, those that fail again are replaced by the newer letter. Each partition
    has them in the order of their positions, by which the stages tell a repeat."""
    replays.letters(range(300))
    found = replays.carry_out(replays.job(max_failures=1.0), refuses=lambda m: m.json["n"] % 10 == 9)
    assert (found.state, replays.outcomes(found)) == ("done", {"ok": 270, "failed_again": 30})
    assert replays.sent() == Counter({replays.id_of(n): 1 for n in range(300)})
    places = [(m.partition, m.offset, m.header("tidegate.replay.job") or "") for m in replays.read(replays.source)]
    positions = [(partition, int(place.removeprefix(f"{found.id}/"))) for partition, _, place in sorted(places)]
    assert positions == sorted(positions)
    states = Counter(letter["state"] for letter in replays.index.reader.every(LetterFilter()))
    assert states == {"resolved": 270, "replaced": 30, "open": 30}
    assert replays.open() == 30
    newer = list(replays.index.reader.every(LetterFilter(state=("open",))))
    again = {result["again"] for result in replays.index.jobs.results(found.id, outcome="failed_again")}
    assert {letter["id"] for letter in newer} == again
    assert {letter["replays"] for letter in newer} == {1}
    (group,) = replays.index.reader.groups()
    assert (group["state"], group["open"], group["reopened"]) == ("open", 30, 0)


def _begun(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> tuple[Job, run.Run]:
    """A job of 100 letters in chunks of 40, and its owner, who has taken the first turn."""
    monkeypatch.setattr(run, "_CHUNK", 40)
    replays.letters(range(100))
    job = replays.job(canary=False)
    owner = replays.start(job)
    assert owner.turn() is not None
    return job, owner


@both_databases
@pytest.mark.parametrize("moment", ["before the commit", "after the commit", "after it is written down"])
def test_killed_at_every_step(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Whenever its owner is killed, the next one sends what is missing, and nothing twice."""
    job, first = _begun(replays, monkeypatch)

    def killed(*_: Any) -> Any:
        raise Killed

    if moment == "before the commit":
        producer = first._sender._producer  # type: ignore[union-attr]  # it is open here

        class Dying:
            """The producer, until it would commit."""

            commit_transaction = staticmethod(killed)

            def __getattr__(self, name: str) -> Any:
                return getattr(producer, name)

        first._sender._producer = Dying()  # type: ignore[union-attr,assignment]  # it is open here, and dies where told to
    elif moment == "after the commit":
        monkeypatch.setattr(first._outcomes, "sent", killed)
    else:
        monkeypatch.setattr(first, "_how_many", killed)
    with pytest.raises(Killed):
        first.turn()
    taken = replays.taken_over(monkeypatch)
    assert taken.id == job.id
    assert replays.carry_out(taken).state == "done"
    assert replays.outcomes(job) == {"ok": 100}
    assert replays.sent() == Counter({replays.id_of(n): 1 for n in range(100)})


def test_the_database_goes_away_when_a_chunk_has_been_sent(
    replays: ReplayScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka has the chunk, and the database does not know: the same agent goes on behind it once the database is back."""
    job, at_work = _begun(replays, monkeypatch)

    def away(*_: Any) -> None:
        raise StoreUnavailable("the database is away")

    with monkeypatch.context() as outage:
        outage.setattr(at_work._outcomes, "sent", away)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                at_work.turn()
    assert replays.go_on(at_work).state == "done"
    assert replays.outcomes(job) == {"ok": 100}
    assert replays.sent() == Counter({replays.id_of(n): 1 for n in range(100)})


def test_records_that_are_not_taken_in_time(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of which not all was confirmed is not committed; whoever tries again sends it once."""
    replays.letters(range(9))
    first = replays.start(replays.job(canary=False))
    sending = first._recovered()
    producer = sending._producer

    class Slow:
        """The producer, with one record still on its way when its time is over."""

        flush = staticmethod(lambda timeout: producer.flush(timeout) + 1)

        def __getattr__(self, name: str) -> Any:
            return getattr(producer, name)

    monkeypatch.setattr(sending, "_producer", Slow())
    with pytest.raises(BrokerUnavailable, match="not taken all"):
        first.turn()
    assert replays.sent() == Counter()
    first.close()
    job = replays.carry_out(replays.taken_over(monkeypatch))
    assert (job.sent, replays.outcomes(job)) == (9, {"ok": 9})
    assert replays.sent() == Counter({replays.id_of(n): 1 for n in range(9)})


def test_a_chunk_is_recovered_with_its_places(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent and not written down is followed from where it is: not before the worker has been there."""
    replays.letters(range(9))
    first = replays.start(replays.job(canary=False))
    monkeypatch.setattr(first._outcomes, "sent", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        first.turn()
    second = replays.start(replays.taken_over(monkeypatch))
    for _ in range(5):
        assert second.turn() is not None
    (chunk,) = second.job.chunks
    places = {tp.partition: offset for tp, offset in chunk.bounds.items()}
    assert places == {m.partition: m.offset for m in replays.read(replays.source)}
    assert replays.outcomes(second.job) == {}
    second.close()


@both_databases
def test_a_zombie_sends_nothing(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that has lost its lease without knowing it is fenced by Kafka and by the database."""
    monkeypatch.setattr(run, "_CHUNK", 10)
    replays.letters(range(40))
    job = replays.job(canary=False)
    zombie = replays.start(job)
    zombie.turn()
    second = replays.start(replays.taken_over(monkeypatch))
    second.turn()
    for act in (lambda: zombie._jobs.renew(job), lambda: zombie._outcomes.turned(job, "stopped", "by a zombie")):
        with pytest.raises(LeaseLost):
            act()
    monkeypatch.setattr(zombie._jobs, "renew", lambda mine: mine)  # it does not ask
    with pytest.raises(LeaseLost):
        zombie.turn()
    assert replays.outcomes(job) == {}
    second.close()
    zombie.close()
    assert max(replays.sent().values()) == 1


def test_too_many_failures(replays: ReplayScene) -> None:
    """The canary stops the job after one; resumed in spite of that it goes on to its end."""
    replays.letters(range(50))
    found = replays.carry_out(replays.job(), refuses=lambda m: True)
    assert (found.state, found.sent, replays.outcomes(found)) == ("stopped", 1, {"failed_again": 1})
    assert found.reason == "1 of 1 failed again (100%), and 10% are allowed"
    assert replays.open() == 50
    replays.index.jobs.release(found)
    replays.index.jobs.resume(found.id, actor="ada")
    claimed = replays.index.jobs.claim("me")
    assert claimed is not None
    found = replays.carry_out(claimed, refuses=lambda m: m.json["n"] == 49)
    assert (found.state, replays.outcomes(found)) == ("done", {"ok": 48, "failed_again": 2})


def test_kafka_has_forgotten_the_progress(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose owner was killed between sending and writing it down, and that nobody took over for a week, stops before the
    letters of which nobody knows whether they were sent; whoever resumes it has them sent. The pipeline counts each once."""
    monkeypatch.setattr(run, "_CHUNK", 4)
    replays.letters(range(10))
    job = replays.job(canary=False)
    first = replays.start(job)
    assert first.turn() is not None
    monkeypatch.setattr(first._outcomes, "sent", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        first.turn()
    first.close()
    admin = AdminClient({"bootstrap.servers": replays.kafka.bootstrap_servers})
    for done in admin.delete_consumer_groups([sender.group_of(job.id)]).values():
        done.result(30)
    found = replays.carry_out(replays.taken_over(monkeypatch))
    assert (found.state, replays.outcomes(found)) == ("stopped", {"ok": 4})
    assert "letters 5 to 8 may have been sent or not" in found.reason
    assert sum(replays.sent().values()) == 8
    replays.index.jobs.release(found)
    replays.index.jobs.resume(found.id, actor="ada")
    claimed = replays.index.jobs.claim("me")
    assert claimed is not None
    found = replays.carry_out(claimed)
    assert (found.state, replays.outcomes(found)) == ("done", {"ok": 10})
    assert sorted(replays.sent().values()) == [1] * 6 + [2] * 4
    ledger = replays.ledger()
    assert ledger == Ledger(read=14, accepted=10, duplicate=4, replayed=14)
    assert ledger.balanced


def test_forged_answers(replays: ReplayScene) -> None:
    """A dead letter that claims to be a replay which has not been sent yet does not keep it from being sent."""
    replays.letters(range(3))
    job = replays.job()
    work = replays.start(job)
    work.turn()
    places = [f"{job.id}/{n}".encode() for n in (3, -1, 10**30)]
    forged = [{"value": b"{}", "headers": [("tidegate.replay.job", place)]} for place in places]
    produce(replays.kafka.bootstrap_servers, replays.dlq, forged)
    replays.work()
    work.close()
    assert replays.outcomes(replays.carry_out(replays.index.jobs.get(job.id))) == {"ok": 3}


def test_a_dead_letter_whose_transaction_is_still_being_settled(replays: ReplayScene) -> None:
    """The worker has committed its offsets, and the markers of its transaction are not written yet: nothing is called
    accepted before they are."""
    replays.letters(range(2))
    work = replays.start(replays.job(canary=False))
    work.turn()
    producer = replays.transaction()
    producer.begin_transaction()
    replays.work(lambda m: m.json["n"] == 1, producer)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert work.turn() is not None
    assert replays.outcomes(work.job) == {}
    producer.commit_transaction(30)
    replays.reindex()
    _turns(work)
    work.close()
    assert replays.outcomes(work.job) == {"ok": 1, "failed_again": 1}


def test_a_failure_among_the_ten(replays: ReplayScene) -> None:
    """The second step of the canary is ten: two failures among eleven are too many."""
    replays.letters(range(50))
    count = iter(range(1000))
    found = replays.carry_out(replays.job(), refuses=lambda m: next(count) in (3, 4))
    assert (found.state, found.sent, replays.outcomes(found)) == ("stopped", 11, {"ok": 9, "failed_again": 2})


@both_databases
def test_pause_and_cancel(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A paused job sends nothing, and follows what it has sent; a cancelled one leaves the rest open, for other jobs."""
    monkeypatch.setattr(run, "_CHUNK", 10)
    replays.letters(range(30))
    job = replays.job(canary=False)
    first = replays.start(job)
    first.turn()
    replays.index.jobs.pause(job.id, actor="ada")
    replays.work()
    _turns(first)
    assert (replays.index.jobs.get(job.id).sent, replays.outcomes(job)) == (10, {"ok": 10})
    with pytest.raises(ConfigError, match="no dead letter is chosen"):
        replays.job()
    replays.index.jobs.resume(job.id, actor="ada")
    first.turn()
    replays.index.jobs.cancel(job.id, actor="ada")
    replays.work()
    _turns(first)
    first.close()
    found = replays.index.jobs.get(job.id)
    assert (found.state, replays.outcomes(found)) == ("cancelled", {"ok": 20, "cancelled": 10})
    assert replays.job().total == replays.open() == 10
    with pytest.raises(ConfigError, match="the job is cancelled"):
        replays.index.jobs.resume(job.id, actor="ada")


def test_a_job_that_nobody_has_begun_is_cancelled_at_once(replays: ReplayScene) -> None:
    replays.letters(range(5))
    job = replays.job(owner="")
    assert replays.index.jobs.cancel(job.id, actor="ada").state == "cancelled"
    assert replays.outcomes(job) == {"cancelled": 5}


def test_rate(replays: ReplayScene) -> None:
    """A hundred letters at 40 a second take two seconds and more."""
    replays.letters(range(100))
    begun = time.monotonic()
    assert replays.carry_out(replays.job(canary=False, rate=40)).state == "done"
    assert time.monotonic() - begun > 2.0


def _turns(work: run.Run) -> None:
    until = time.monotonic() + 30
    while work.turn() is not None:
        assert time.monotonic() < until


def test_progress_is_forgotten_at_the_end(replays: ReplayScene) -> None:
    """A finished job leaves no consumer group behind."""
    replays.letters(range(3))
    job = replays.carry_out(replays.job())
    groups = AdminClient({"bootstrap.servers": replays.kafka.bootstrap_servers}).list_consumer_groups().result(30)
    assert sender.group_of(job.id) not in {group.group_id for group in groups.valid}
