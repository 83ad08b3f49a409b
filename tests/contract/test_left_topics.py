"""A topic that has left the pipeline file, or came back with fewer partitions: it holds nothing up, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.store_records import DELAY, SIZE, START, Flight, batch_of, flights_plan
from tidegate.clock import ManualClock
from tidegate.config.schema import Source
from tidegate.config.sinks import PostgresSink, SqliteSink
from tidegate.errors import StoreFenced
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import Plan
from tidegate.store import open_store
from tidegate.store.published import Published
from tidegate.store.raw import fetch
from tidegate.store.sql import SqlStore

KEPT, LEFT = TopicPartition("flights", 0), TopicPartition("trains", 0)
PASSED = START + SIZE + DELAY  # an event time by which the first window has closed
Open = Callable[..., SqlStore]


def plan_of(*topics: str) -> Plan:
    plan = flights_plan(measures=["flights"], groups=["overall"])
    return replace(plan, pipeline=plan.pipeline.model_copy(update={"source": Source(topics=topics)}))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> PostgresSink | SqliteSink:
    """Both databases."""
    if request.param == "sqlite":
        return SqliteSink.model_validate({"type": "sqlite", "path": str(tmp_path / "store.db")})
    return PostgresSink.model_validate({"type": "postgres", "url": request.getfixturevalue("postgres").url})


@pytest.fixture
def started(sink: PostgresSink | SqliteSink) -> Iterator[Open]:
    """The store as a process starts on it, whose file names these topics, which have these partitions."""
    stores: list[SqlStore] = []

    def start(*topics: str, partitions: list[TopicPartition] | None = None, topic_id: str = "") -> SqlStore:
        store = open_store(plan_of(*topics), sink, ManualClock())
        assert isinstance(store, SqlStore)
        stores.append(store)
        store.prepare()
        store.expect(partitions or [TopicPartition(topic, 0) for topic in topics], dict.fromkeys(topics, topic_id))
        return store

    yield start
    for store in stores:
        store.close()


def finals(store: SqlStore) -> list[tuple[bool, int]]:
    """Of each window whether it is final, and how many records it has."""
    with store._transaction(reads=True) as connection:
        rows = fetch(connection, "SELECT final, records FROM overall ORDER BY window_start")
    return [(bool(final), int(records)) for final, records in rows]


def fill(store: SqlStore, *, left: int) -> None:
    """The partition that stays has passed the first window, the other one has one record, of this event time."""
    epochs = {tp: row.epoch for tp, row in store.claim([KEPT, LEFT], "w1").items()}
    plan = plan_of("flights")
    store.write(batch_of(plan, KEPT, [Flight(0), Flight(1, PASSED)], epoch=epochs[KEPT]))
    store.write(batch_of(plan, LEFT, [Flight(0, left)], epoch=epochs[LEFT]))


def test_no_window_waits_for_it(started: Open) -> None:
    """Its records stay in the results; back in the file, it is waited for again."""
    both = started("flights", "trains")
    fill(both, left=START)
    assert finals(both) == [(False, 2), (False, 1)]
    without = started("flights")
    assert finals(without) == [(True, 2), (False, 1)]
    assert [(row.tp, row.state.ledger.read) for row in without.partitions()] == [(KEPT, 2), (LEFT, 1)]
    again = started("flights", "trains")
    assert finals(again) == [(False, 2), (False, 1)]
    assert again.claim([LEFT], "w2")[LEFT].state.upto == 0


def test_windows_time_out_without_it(started: Open) -> None:
    """And whoever goes on with the old file has to claim it again, so that he brings back no window that has gone."""
    both = started("flights", "trains")
    fill(both, left=START)
    without = started("flights")
    epochs = {KEPT: without.claim([KEPT], "run")[KEPT].epoch}
    done = without.time_out(epochs, 0)
    assert done is not None
    assert (done.upto, done.windows) == (START + SIZE, {"overall": 1})
    late = batch_of(plan_of("flights"), LEFT, [Flight(1)], before=both.partitions()[1].state)
    with pytest.raises(StoreFenced):
        both.write(late)
    both.write(replace(late, epoch=both.claim([LEFT], "w1")[LEFT].epoch))
    assert finals(without) == [(False, 1)]


def test_partitions_that_a_topic_has_no_more(started: Open) -> None:
    """Made anew with fewer, before anything was read of it: the rest is not waited for, and keeps nothing from timing out."""
    gone = [TopicPartition("flights", number) for number in (1, 2)]
    store = started("flights", partitions=[KEPT, *gone])
    epochs = {KEPT: store.claim([KEPT], "w1")[KEPT].epoch}
    store.write(batch_of(plan_of("flights"), KEPT, [Flight(0), Flight(1, PASSED)], epoch=epochs[KEPT]))
    assert (finals(store), store.time_out(epochs, 0)) == ([(False, 1), (False, 1)], None)
    store.expect([KEPT], {})
    assert finals(store) == [(True, 1), (False, 1)]
    done = store.time_out(epochs, 0)
    assert done is not None
    assert done.upto == START + SIZE


def test_partitions_of_which_a_broker_has_not_heard(started: Open) -> None:
    """A topic grows, and a process that starts then asks a broker that does not know it yet: windows wait for the new partition
    all the same, since the topic is the same. It was made anew with fewer? Then they do not; nor until it has grown again."""
    both = [KEPT, TopicPartition("flights", 1)]
    store = started("flights", partitions=both, topic_id="one")
    epochs = {KEPT: store.claim([KEPT], "w1")[KEPT].epoch}
    store.write(batch_of(plan_of("flights"), KEPT, [Flight(0), Flight(1, PASSED)], epoch=epochs[KEPT]))
    late = started("flights", topic_id="one")
    assert (finals(late), late.time_out(epochs, 0)) == ([(False, 1), (False, 1)], None)
    store.expect([KEPT], {"flights": "two"})
    assert finals(late) == [(True, 1), (False, 1)]
    store.expect(both, {"flights": "two"})
    assert finals(late) == [(False, 1), (False, 1)]


@pytest.mark.parametrize("sink", ["postgres"], indirect=True)
@pytest.mark.postgres
@pytest.mark.slow
def test_a_sink_beside_the_store(started: Open, sink: PostgresSink) -> None:
    """It is given what the topic had, and is told as final what does not wait for it."""
    fill(started("flights", "trains"), left=START)
    store = started("flights")
    published = Published(plan_of("flights"), sink)
    try:
        published.prepare()
        publication = published.plan("kafka", {KEPT: store.claim([KEPT], "run")[KEPT].epoch})
        assert publication is not None
        table = published.results(publication, plan_of("flights").aggregations[0], "append", None)
        assert [(row["records"], row["final"]) for row in table.to_pylist()] == [(2, True)]
    finally:
        published.close()


def test_a_state_of_nobody_is_as_it_was(started: Open) -> None:
    """A row that becomes idle so keeps everything else."""
    store = started("flights", partitions=[KEPT, TopicPartition("flights", 1)])
    store.expect([KEPT], {})
    row = store.partitions()[1]
    assert (row.epoch, row.owner, row.state) == (0, "", PartitionState(idle=True))
