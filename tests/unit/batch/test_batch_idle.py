"""When a run says that a partition is quiet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from batch.claims import Claims
from batch.idle import Idleness
from tests.contract.store_records import flights_plan
from tidegate.clock import ManualClock
from tidegate.config.errorhandling import ErrorHandling
from tidegate.config.sinks import SqliteSink
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import PartitionState
from tidegate.store import open_store
from tidegate.store.reading import TopicReader

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Ends:
    """The ends of the logs, as a broker would tell them."""

    def __init__(self, **ends: int) -> None:
        self.of = {A: ends["a"], B: ends["b"]}

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        return 0, self.of[tp]


def test_a_partition_is_idle_when_it_was_at_its_end_for_a_while(tmp_path: Path) -> None:
    """An empty one too, and one whose log ends with markers that were read; new records end it, and it is said again
    after them. One that has records to read is not idle, however long it takes."""
    store = open_store(flights_plan(), SqliteSink(type="sqlite", path=str(tmp_path / "x.db")))
    store.prepare()
    guard, clock = Guard("store", ErrorHandling()), ManualClock()
    claims = Claims(flights_plan(), store, guard, "spark:1", {})
    claims.claim([A, B])
    ends, reached = Ends(a=0, b=6), {A: 0, B: 3}
    idleness = Idleness(claims, cast(TopicReader, ends), 10.0, clock)

    def idle(seconds: float) -> list[bool]:
        clock.advance(seconds)
        idleness.look(reached)
        return [row.state.idle for row in store.partitions()]

    assert idle(0) == [False, False]
    assert idle(9) == [False, False]
    assert idle(2) == [True, False]
    reached[B] = 6
    assert idle(2) == [True, False]
    assert idle(11) == [True, True]
    ends.of[A] = 5
    assert idle(2) == [True, True]
    state = PartitionState(4, ledger=Ledger(5, 5))
    claims.write([claims.batch(A, replace(state, idle=False))])
    assert idle(2) == [False, True]
    assert idle(11) == [True, True]
    store.close()
