"""What a run does while nothing comes. Over SQLite, and without a broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest

from batch.claims import Claims
from batch.idle import Idleness
from batch.pauses import Pauses
from batch.publish.publisher import Publisher
from batch.timeouts import Timeouts
from tests.contract.store_records import DELAY, SIZE, START, Flight, batch_of
from tests.unit.batch.test_batch_timeouts import TIMEOUT, plan_with
from tidegate.clock import ManualClock
from tidegate.config.errorhandling import ErrorHandling
from tidegate.config.sinks import SqliteSink
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.store import open_store
from tidegate.store.reading import TopicReader

A, B = TopicPartition("flights", 0), TopicPartition("flights", 1)
DUE = START + SIZE + TIMEOUT + DELAY  # an event time by which the first window has timed out


class Quiet:
    """A run over two partitions that have been read to their ends. `told`: sinks were looked at, windows have gone."""

    def __init__(self, path: Path) -> None:
        plan, guard, self.clock = plan_with(TIMEOUT), Guard("store", ErrorHandling()), ManualClock()
        self.plan, self.store = plan, open_store(plan, SqliteSink(type="sqlite", path=str(path)))
        self.store.prepare()
        self.claims = Claims(plan, self.store, guard, "run", {})
        self.claims.claim([A, B])
        self.told: list[str | Mapping[str, int]] = []
        timeouts = Timeouts(plan, self.store, guard, self.claims, self.told.append)
        idleness = Idleness(self.claims, cast(TopicReader, self), 5.0, self.clock)
        self.pauses = Pauses(idleness, cast(Publisher, self), timeouts, self.clock)

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """The broker's part."""
        return 0, self.claims.states[tp].upto + 1

    def catch_up(self) -> None:
        """The publisher's part."""
        self.told.append("sinks")

    def write(self, tp: TopicPartition, *times: int) -> None:
        records = [Flight(offset, time=time) for offset, time in enumerate(times, self.claims.states[tp].upto + 1)]
        whole = batch_of(self.plan, tp, records, before=self.claims.states[tp])
        self.claims.write([self.claims.batch(tp, whole.state, deltas=whole.deltas)])

    def after(self, seconds: float) -> list[str | Mapping[str, int]]:
        """What a look tells, so much later."""
        self.clock.advance(seconds)
        self.told.clear()
        self.pauses.look({})
        return list(self.told)


@pytest.fixture
def open_run(tmp_path: Path) -> Iterator[type[Quiet] | object]:
    made: list[Quiet] = []

    def open_() -> Quiet:
        made.append(Quiet(tmp_path / "x.db"))
        return made[-1]

    yield open_
    for one in made:
        one.store.close()


def test_what_another_engine_has_moved_is_seen_at_the_start(open_run: type[Quiet]) -> None:
    """Its records have moved the watermark: sinks are looked at first, then what has timed out goes, without a record."""
    worker = open_run()
    worker.write(A, START, DUE)
    worker.write(B, DUE)
    run = open_run()
    run.pauses.catch_up()
    assert run.told == ["sinks", {"overall": 1}]


def test_a_partition_that_becomes_idle_lets_windows_go(open_run: type[Quiet]) -> None:
    """It was far behind, and there is no new record anywhere; then it wakes, and holds windows again."""
    run = open_run()
    run.write(A, START, DUE)
    run.write(B, START)
    run.pauses.catch_up()
    assert run.told == ["sinks"]
    assert run.after(1) == []
    run.write(A, DUE + 1)  # not idle: its end has moved
    assert run.after(4.5) == []
    assert run.after(1) == ["sinks", {"overall": 1}]
    run.write(A, DUE + SIZE)
    run.write(B, START)
    assert run.after(1) == []
    assert [state.idle for state in run.claims.states.values()] == [False, False]
    assert run.after(60) == ["sinks"]


def test_what_a_backfill_has_changed_is_seen_soon(open_run: type[Quiet]) -> None:
    """Sinks are looked at every ten seconds, though nothing comes and nobody falls asleep."""
    run = open_run()
    run.write(A, START)
    run.write(B, START)
    run.pauses.catch_up()
    assert run.after(1) == []
    assert run.after(5) == ["sinks"]  # both are idle now
    assert [run.after(1) for _ in range(9)] == [[]] * 9
    assert run.after(1) == ["sinks"]
    assert run.after(9) == []
