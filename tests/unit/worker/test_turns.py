"""Delayed retries that keep the order of a key, over a real local state: retry topics and their agent are a model here."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dlq.retry.rows import going_back, waiting
from tests.reference import Record
from tests.unit.worker.pieces import Partition, plan_of
from tidegate.clock import ManualClock
from tidegate.stages import turns
from tidegate.stages.batch import PartitionState
from worker.source import Step

DELAYS = ("10 seconds", "1 minute", "10 minutes")
CALLS: list[str] = []


def stubborn(row: dict[str, Any]) -> dict[str, Any] | None:
    """Refuses a record as often as its colour says."""
    CALLS.append(row["id"])
    if CALLS.count(row["id"]) <= int(row["colour"]):
        raise ValueError("not yet")
    return row if row["amount"] else None


@dataclass
class Ladder:
    """A partition whose handler refuses, its source topic, its retry topics, and an agent that gives back what is due."""

    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    log: list[Record] = field(default_factory=list)
    read: int = 0
    topics: dict[str, deque[tuple[int, Record]]] = field(default_factory=dict)
    dead: list[tuple[str, str, int]] = field(default_factory=list)  # id, error, attempts
    deferred: list[tuple[str, int, int | None]] = field(default_factory=list)  # id, tries, behind

    def __post_init__(self) -> None:
        CALLS.clear()
        ladder = {"delays": DELAYS, "keepOrder": True, "stages": ["handle"]} | self.settings
        plan = plan_of(
            handlers=[{"call": f"{__name__}:stubborn"}],
            errorHandling={"retryTopics": ladder, "floodGuard": {"enabled": False}},
        )
        self.partition = Partition(plan, self.path)

    def write(
        self, name: str, key: str | None, refusals: int = 0, *headers: tuple[str, bytes], amount: int = 1
    ) -> None:
        value = {"id": name, "colour": str(refusals), "amount": amount, "seen": len(self.log)}
        self.append(json.dumps(value).encode(), None if key is None else key.encode(), headers)

    def append(self, value: bytes | None, key: bytes | None, headers: Any = ()) -> None:
        self.log.append(Record(len(self.log) * 2, 0, value, tuple(headers), key))  # offsets have gaps

    def work(self, most: int = 1_000) -> Step:
        """One batch of the source topic."""
        records = self.log[self.read : self.read + most]
        self.read += len(records)
        step = self.partition.take(*records)
        assert step.result is not None
        ids = {record.offset: name_of(record.value) for record in records}
        self.dead += [(name_of(e.value), e.kind.error_type, e.kind.attempt) for e in step.dead]
        self.deferred += [(ids[one.rejection.offset], one.tries, one.behind) for one in step.result.deferred]
        for rows in step.effects.topics:
            if "..retry." in rows.topic:
                for key, value, headers, _ in rows:
                    due = waiting(list(headers)).due  # type: ignore[union-attr]  # ours
                    self.topics.setdefault(rows.topic, deque()).append((due, Record(0, 0, value, headers, key)))
        return step

    def give_back(self) -> None:
        """What is due, each topic in its order; time goes on to where something is."""
        heads = [line[0][0] for line in self.topics.values() if line]
        clock = self.partition.clock
        assert isinstance(clock, ManualClock)
        clock.advance(max(0.0, min(heads, default=0) / 1000 - clock.time()))
        for line in self.topics.values():
            while line and line[0][0] <= clock.time() * 1000:
                record = line.popleft()[1]
                self.append(record.value, record.key, going_back(list(record.headers)))

    def finish(self, random: Random | None = None) -> None:
        """Until nothing waits any more. With `random`: in batches of any size, and restarts in between."""
        for _ in range(2_000):
            if self.read == len(self.log) and not any(self.topics.values()):
                return
            if self.read == len(self.log) or (random and random.random() < 0.3):
                self.give_back()
            if self.read < len(self.log):
                self.work(random.randint(1, 7) if random else 1_000)
            if random and random.random() < 0.2:
                self.partition.restart()
        raise AssertionError(f"it does not end: {CALLS[-20:]}")


def name_of(value: bytes | None) -> str:
    return str(json.loads(value)["id"]) if value and value != b"{" else ""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Ladder]]:
    """`make(**settings)`: a partition of a pipeline with these settings of `retryTopics`."""
    made: list[Ladder] = []

    def make_(**settings: Any) -> Ladder:
        made.append(Ladder(tmp_path / "state", settings))
        return made[-1]

    yield make_
    for ladder in made:
        ladder.partition.stages.close()
        ladder.partition.db.close()


def test_later_records_wait_behind_the_one_that_failed(make: Callable[..., Ladder]) -> None:
    """Of a key the handler sees nothing until the one that failed has gone through; other keys, and records without one, do
    not wait. What waits has not been tried, and says so."""
    ladder = make()
    ladder.write("a1", "a", 2)
    ladder.write("b1", "b")
    ladder.write("a2", "a")
    ladder.write("n1", None)
    ladder.work()
    ladder.write("a3", "a", 1)
    ladder.write("n2", None)
    ladder.work()
    assert CALLS == ["a1", "b1", "n1", "n2"]
    assert ladder.deferred == [("a1", 1, None), ("a2", 0, 0), ("a3", 0, 0)]
    ladder.finish()
    assert [name for name in CALLS if name[0] == "a"] == ["a1", "a1", "a1", "a2", "a3", "a3"]
    assert ladder.dead == []
    assert ladder.partition.state.lines == b""
    ledger = ladder.partition.state.ledger
    assert (ledger.accepted, ledger.read, ledger.deferred) == (6, len(ladder.log), len(ladder.deferred))


def test_the_next_goes_on_when_the_first_is_a_dead_letter(make: Callable[..., Ladder]) -> None:
    """After the last delay the first is a dead letter with all its attempts, and the second is tried then, for the first
    time."""
    ladder = make(delays=["1 second"])
    for name, refusals in (("a1", 9), ("a2", 9), ("a3", 0)):
        ladder.write(name, "a", refusals)
    ladder.finish()
    assert CALLS == ["a1", "a1", "a2", "a2", "a3"]
    assert ladder.dead == [("a1", "ValueError", 2), ("a2", "ValueError", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_any_log_any_batches_any_restarts(make: Callable[..., Ladder], number: int, seed: int) -> None:
    """However the log is cut, whenever the worker starts anew, and whenever what is due comes back: each record of a key is
    done with before the next is tried, each exactly once, and nothing is left waiting."""
    random = Random(seed * 1_000 + number)
    ladder = make(delays=["1 second", "5 seconds"])
    names = dict[str, list[str]]()
    for n in range(40):
        key, refusals = random.choice("abc"), random.choice([0, 0, 0, 1, 2, 5])
        names.setdefault(key, []).append(f"{key}{n}")
        if random.random() < 0.1:
            ladder.append(b"{", key.encode())
        ladder.write(f"{key}{n}", key, refusals, amount=random.choice([1, 1, 0]))
        if random.random() < 0.3:
            ladder.work(random.randint(1, 5))
    ladder.finish(random)
    for key, expected in names.items():
        mine = [name for name in CALLS if name[0] == key]
        assert set(mine) == set(expected)
        assert mine == [name for name in expected for _ in range(mine.count(name))]
    ledger = ladder.partition.state.ledger
    assert ledger.accepted + ledger.filtered + len({name for name, _, _ in ladder.dead if name}) == 40
    assert ladder.partition.state.lines == b""


def test_whoever_was_first_and_is_lost_holds_up_nobody(make: Callable[..., Ladder]) -> None:
    """When a retry topic has lost the first of a line, the one behind it is tried when it is back."""
    ladder = make()
    ladder.write("a1", "a", 2)
    ladder.work()
    ladder.write("a2", "a")
    ladder.write("a3", "a")
    ladder.work()
    (topic,) = ladder.topics.values()
    topic.popleft()
    ladder.finish()
    assert CALLS == ["a1", "a2", "a3"]
    assert ladder.partition.state.lines == b""


def test_a_record_that_does_not_get_there_again_leaves_its_line(make: Callable[..., Ladder]) -> None:
    """The first of a line is refused before the handlers when it is back, since the rules are others now: the next goes on."""
    ladder = make()
    ladder.write("a1", "a", 2)
    ladder.write("a2", "a")
    ladder.work()
    (topic,) = ladder.topics.values()
    due, first = topic.popleft()
    topic.appendleft((due, first._replace(value=b"{")))
    ladder.finish()
    assert CALLS == ["a1", "a2"]


def test_a_replay_waits_for_nobody(make: Callable[..., Ladder]) -> None:
    """Whoever replays a dead letter wants to know: it is tried at once."""
    ladder = make()
    ladder.write("a1", "a", 2)
    ladder.write("a0", "a", 0, ("tidegate.replay.of", b"flights-0-1-handle"))
    ladder.work()
    assert CALLS == ["a1", "a0"] or CALLS == ["a0", "a1"]


def test_who_cannot_wait_is_a_dead_letter(make: Callable[..., Ladder], monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that is too large for a retry topic, or one too many, does not overtake: it is a dead letter that says why."""
    monkeypatch.setattr(turns, "MOST", 2)
    ladder = make()
    ladder.write("a1", "a", 1)
    ladder.write("a2", "a", 0, ("h", b"x" * 900_000))
    ladder.write("a3", "a")
    ladder.write("a4", "a")
    ladder.work()
    ladder.write("b1", "b", 1)
    ladder.finish()
    assert ladder.dead == [("a2", "CannotWait", 1), ("a4", "CannotWait", 1), ("b1", "ValueError", 1)]
    assert CALLS == ["a1", "b1", "a1", "a3"]


def test_the_same_answers_make_the_same_lines(make: Callable[..., Ladder]) -> None:
    """A batch that is repeated with the answers that were kept of it changes the state as it did, and asks nobody."""
    ladder = make()
    for name, refusals in (("a1", 1), ("b1", 0), ("a2", 0), ("b2", 1), ("b3", 0)):
        ladder.write(name, name[0], refusals)
    first = ladder.work()
    assert first.result is not None
    calls = len(CALLS)
    known = first.result.answers
    again = ladder.partition.stages.batch(first.result.raw, PartitionState(), first.closed_upto, known)
    assert again.result is not None
    assert again.state == first.state
    assert again.result.deferred == first.result.deferred
    assert len(CALLS) == calls


@pytest.mark.parametrize(
    ("settings", "names"), [({"delays": []}, "without delays"), ({"stages": ["handle", "sink"]}, "have been handled")]
)
def test_orders_that_cannot_be_kept(make: Callable[..., Ladder], settings: dict[str, Any], names: str) -> None:
    """Without delays, or for failures that show when later records have been handled, the file is refused."""
    with pytest.raises(ValueError, match=names):
        make(**settings)
