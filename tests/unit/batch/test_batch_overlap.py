"""The next micro-batch is computed while one is being committed, and written only behind it. Without Spark or a store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
from py4j.protocol import Py4JError

from batch import wire
from batch.microbatch import MicroBatches, Stopped
from batch.sink import Commit, Compute
from batch.stage import StageTask
from tests.harness import wait_until
from tests.unit.worker.pieces import TP, plan_of
from tidegate.errors import EngineFailed, StoreFenced, StoreUnavailable
from tidegate.ledger import Ledger
from tidegate.stages.batch import PartitionState

MOMENT = 0.1  # seconds: for what must not happen meanwhile
PATIENCE = 30.0
pytestmark = pytest.mark.slow

REFUSED = Ledger(read=1, dead_lettered=1)


class Run:
    """What stands around micro-batches of one partition, each of ten offsets; `said`: what happened, in order.

    `gate`: a commit waits for it. `fate`: what becomes of the commit up to an offset: an error, or a ledger that is another
    than the computed one, because the store has refused something.
    """

    def __init__(self, *, dedupe: bool = False) -> None:
        settings = {"dedupe": {"key": "id", "horizon": "1 hour"}} if dedupe else {}
        self.said: list[str] = []
        self.gate, self.stop = threading.Event(), threading.Event()
        self.gate.set()
        self.fate: dict[int, Exception | Ledger] = {}
        self.states = {TP: PartitionState()}
        claims = {"states": property(lambda _: dict(self.states)), "claim": lambda *_: []}
        reader = SimpleNamespace(partitions=lambda _: [0], bounds=lambda _: (0, 1000))
        self.fails: BaseException | None = None  # what the executors do
        self.executors = SimpleNamespace(at_once=lambda: 1, run=self._run, cancelled=False)
        self.batches = MicroBatches(
            plan_of(**settings), cast(Any, self.executors), cast(Any, self),
            cast(Any, type("Claims", (), claims)()), {}, cast(Any, reader), self.stop, self._told, None,
            cast(Any, SimpleNamespace(look=lambda: None)), cast(Any, SimpleNamespace(look=lambda _: None)),
        )  # fmt: skip
        self.batches.begin({})

    def take(self, end: int) -> None:
        self.batches.take({TP: end})

    def waits(self, call: Callable[[], None], meanwhile: str | None = None) -> bool:
        """Whether the call does not return before the gate is opened, which is when `meanwhile` has happened."""
        thread = threading.Thread(target=call)
        thread.start()
        if meanwhile is not None:
            wait_until(lambda: meanwhile in self.said, PATIENCE, meanwhile)
        thread.join(MOMENT)
        waited = thread.is_alive()
        self.gate.set()
        thread.join(PATIENCE)
        return waited

    def _run(self, task: StageTask, _: int) -> pa.Table:
        """The executors' work."""
        if self.fails is not None:
            raise self.fails
        ((stretch,),) = task.stretches
        before = task.states[TP]
        self.said.append(f"compute {stretch.end} on {before.ledger.dead_lettered} dead")
        moved = before.ledger + Ledger(read=1, accepted=1)
        applied = wire.Applied(before, PartitionState(stretch.end - 1, ledger=moved), None, None)
        return pa.Table.from_batches([wire.send(TP, applied)])

    def commit(self, outcomes: Sequence[wire.Outcome], _: Compute) -> Commit:
        """The sink's work."""
        assert self.gate.wait(PATIENCE)
        (outcome,) = outcomes
        assert outcome.applied.before == self.states[TP], "computed on what the store has"
        state, fate = outcome.applied.state, self.fate.get(outcome.applied.state.upto)
        if isinstance(fate, Exception):
            raise fate
        if fate is not None:
            state = PartitionState(state.upto, ledger=outcome.applied.before.ledger + fate)
        self.states = {TP: state}
        self.said.append(f"commit {state.upto + 1}")
        return Commit()

    def _told(self, *_: object) -> None: ...


@contextmanager
def run(**options: Any) -> Iterator[Run]:
    made = Run(**options)
    yield made
    made.batches.close()


def test_the_next_is_computed_meanwhile_and_committed_behind() -> None:
    """`take` returns before the commit is through, and waits with the next one's commit until then."""
    with run() as one:
        one.gate.clear()
        one.take(10)
        assert one.waits(lambda: one.take(20), "compute 20 on 0 dead")
        one.batches.settle()
        assert one.said == ["compute 10 on 0 dead", "compute 20 on 0 dead", "commit 10", "commit 20"]


def test_what_the_store_refuses_is_known_to_the_next() -> None:
    """Then the states are others than those it was computed on, and it is computed again."""
    with run() as one:
        one.gate.clear()
        one.fate[9] = REFUSED
        one.take(10)
        assert one.waits(lambda: one.take(20), "compute 20 on 0 dead")
        one.batches.settle()
        assert one.said[1:] == ["compute 20 on 0 dead", "commit 10", "compute 20 on 1 dead", "commit 20"]


@pytest.mark.parametrize("asks", ["take", "settle", "between"])
def test_a_commit_that_fails_is_said_by_the_next_call(asks: str) -> None:
    """Whichever it is; what was computed on it is forgotten, and the run knows that the outcome of its write is not known."""
    with run() as one:
        one.fate[9] = StoreUnavailable("away")
        one.take(10)
        calls: dict[str, Callable[[], None]] = {
            "take": lambda: one.take(20), "settle": one.batches.settle, "between": lambda: until_done(one),
        }  # fmt: skip
        with pytest.raises(StoreUnavailable):
            calls[asks]()
        assert one.batches.failed
        assert isinstance(one.batches.error, StoreUnavailable)
        assert not any(said.startswith("commit") for said in one.said)
        one.fate.clear()
        one.batches.begin({})
        one.take(10)
        one.batches.settle()
        assert one.said[-2:] == ["compute 10 on 0 dead", "commit 10"]


def test_nothing_is_taken_between_a_commit_that_failed_and_the_next_attempt() -> None:
    """A query that has not been stopped yet offers what comes after it: with that committed, nobody would read the rest."""
    with run() as one:
        one.fate[9] = StoreUnavailable("away")
        one.take(10)
        with pytest.raises(StoreUnavailable):
            until_done(one)
        with pytest.raises(Stopped):
            one.take(20)
        one.batches.settle()
        assert one.states[TP].upto == -1
        assert isinstance(one.batches.error, StoreUnavailable), "what has ended the attempt is still known"


def until_done(one: Run) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        one.batches.between()


def test_a_computation_that_fails_waits_for_the_commit_before() -> None:
    """Which is through when the error is raised; was it fenced, that is the error."""
    with run() as one:
        one.gate.clear()
        one.take(10)
        one.fails = EngineFailed("a task was lost")
        threading.Timer(MOMENT, one.gate.set).start()
        with pytest.raises(EngineFailed):
            one.take(20)
        assert one.said[-1] == "commit 10"
        one.fails = None
        one.batches.begin({})
        one.gate.clear()
        one.fate[19] = StoreFenced("another has it")
        one.take(20)
        one.fails = EngineFailed("a task was lost")
        threading.Timer(MOMENT, one.gate.set).start()
        with pytest.raises(StoreFenced):
            one.take(30)
        assert isinstance(one.batches.error, StoreFenced)


def test_dedupe_computes_when_the_keys_before_are_in_the_store() -> None:
    """The executors ask the store which keys were seen."""
    with run(dedupe=True) as one:
        one.gate.clear()
        one.take(10)
        assert one.waits(lambda: one.take(20))
        one.batches.settle()
        assert one.said == ["compute 10 on 0 dead", "commit 10", "compute 20 on 0 dead", "commit 20"]


def test_a_run_that_is_told_to_stop_commits_what_it_has_in_hand() -> None:
    """And begins nothing more."""
    with run() as one:
        one.gate.clear()
        one.take(10)
        one.stop.set()
        threading.Timer(MOMENT, one.gate.set).start()
        with pytest.raises(Stopped):
            one.take(20)
        assert one.said == ["compute 10 on 0 dead", "commit 10"]
        assert one.batches.error is None


def test_a_micro_batch_that_is_cancelled_is_given_up() -> None:
    """The one before it is committed; that its jobs end with an error is no error of the run's."""
    with run() as one:
        one.gate.clear()
        one.take(10)
        one.fails, one.executors.cancelled = Py4JError("cancelled"), True
        threading.Timer(MOMENT, one.gate.set).start()
        with pytest.raises(Stopped):
            one.take(20)
        assert (one.said, one.batches.error) == (["compute 10 on 0 dead", "commit 10"], None)
