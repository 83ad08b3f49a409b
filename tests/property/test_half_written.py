"""Between the two writes anything may happen, and handlers may answer otherwise: state and database stay one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import worker.partition
from tests import fickle
from tests.property.half_written import (
    FAULTS,
    HANDLERS,
    UNLUCKY,
    WITH_INFINITE,
    Fault,
    Killed,
    asking_plan,
    check,
    logs,
    opened,
    run,
)  # fmt: skip
from tests.reference import Record
from tests.unit.worker.pieces import record
from tidegate.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with patch.multiple(worker.partition, _OUTAGE_WAIT=(0.0, 0.0), _FENCE_WAIT=0.0, _HELD_WAIT=0.0):
        yield


@settings(max_examples=15)
@given(
    handler=st.sampled_from(HANDLERS),
    log=logs(),
    sizes=st.lists(st.integers(1, 6), max_size=30),
    script=st.lists(st.sampled_from(FAULTS), max_size=12),
    seed=st.integers(0, 2**16),
)
def test_whatever_fails_between_the_writes_state_and_database_agree(
    handler: dict[str, Any] | None, log: list[Record], sizes: list[int], script: list[Fault], seed: int
) -> None:
    """A handler that answers otherwise at each call, a database that refuses some of it, outages and kills before and after
    each write, batches cut otherwise at each start: ledger, windows and dead letters are the same on both sides, each dead
    letter is there once, and nobody is asked again for what the database has."""
    fickle.start(seed, WITH_INFINITE)
    with tempfile.TemporaryDirectory() as directory, opened(Path(directory), handler, script) as world:
        worker = run(world, log, sizes)
        check(world, worker, log)


@pytest.mark.parametrize("handler", HANDLERS[:2], ids=["sync", "async"])
def test_an_outage_asks_no_handler_twice(handler: dict[str, Any], tmp_path: Path) -> None:
    """While the database or Kafka is away a batch is tried again and again, with the answers of its first try."""
    fickle.start(1)
    log = [record(offset, offset * 1000, ratio=0.5) for offset in range(6)]
    script: list[Fault] = ["outage before", "outage before", "outage after", "outage before", "outage after"]
    with opened(tmp_path, handler, script) as world:
        check(world, run(world, log, [4]), log)
        assert world.script == []
    assert list(fickle.ASKED) == [f"flights-0-{offset}" for offset in range(6)]


def test_a_record_that_the_database_refuses_sends_no_other_to_the_handlers_again(tmp_path: Path) -> None:
    """The batch goes on without the refused record, with what the handler said of the others."""
    fickle.start(2, ("as it was",))
    log = [record(offset, offset * 15_000, amount=UNLUCKY if offset == 2 else 1, ratio=0.5) for offset in range(4)]
    with opened(tmp_path, HANDLERS[0], []) as world:
        worker = run(world, log, [])
        check(world, worker, log)
        assert (worker.state.ledger.accepted, worker.state.ledger.dead_lettered) == (3, 1)
    assert list(fickle.ASKED) == [f"flights-0-{offset}" for offset in range(4)]


def test_what_the_database_refused_stays_refused_after_a_kill(tmp_path: Path) -> None:
    """Killed after the database has taken the batch without it, and started again with smaller batches: without a handler
    too, the record is dead-lettered once, and counts nowhere."""
    log = [record(offset, 1000, amount=UNLUCKY if offset == 0 else 1, ratio=0.5) for offset in range(4)]
    script: list[Fault] = ["none", "none", "kill before"]
    with opened(tmp_path, None, script) as world:
        worker = run(world, log, [4, 1, 2])
        check(world, worker, log)
        assert world.script == []
        assert worker.state.ledger.dead_lettered == 4


def test_a_database_that_is_ahead_by_more_than_it_has_answers_for_is_an_error(tmp_path: Path) -> None:
    """The changelog was lost: handlers would have to be asked again for what is counted already. The error says so, and
    nobody is asked."""
    fickle.start(3)
    log = [record(offset, offset * 1000, ratio=0.5) for offset in range(6)]
    with opened(tmp_path, HANDLERS[0], []) as world:
        run(world, log, [3])
        world.lose_state()
        with pytest.raises(ConfigError, match=r"up to offset 5, the state up to -1, .*those after offset 2 are kept"):
            run(world, log, [])
    assert len(fickle.ASKED) == 6


def test_a_repeat_that_would_not_give_what_the_database_has_is_an_error(tmp_path: Path) -> None:
    """A rule was changed between the two writes: before Kafka is told another story, the worker stops and shows both."""
    log = [record(offset, offset * 1000, amount=offset, ratio=0.5) for offset in range(4)]
    with opened(tmp_path, None, ["none", "kill before"]) as world:
        with pytest.raises(Killed):
            run(world, log, [], lives=1)
        world.plan = asking_plan(tmp_path / "results.db", None, rules=[{"type": "range", "column": "amount", "min": 2}])
        with pytest.raises(
            ConfigError, match=r"at offset 3 of flights-0 the state would not be(.|\n)*accepted=2(.|\n)*accepted=4"
        ):
            run(world, log, [])
        assert ("p.dlq", 0) not in world.log
