"""What a sink beside the store is to have: found in a real PostgreSQL, planned, read and moved on; and what a crash leaves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest

from tests.contract.store_records import DELAY, SIZE, START, Flight, batch_of, deltas, flights_plan, truth
from tests.contract.test_store import flights
from tidegate.clock import ManualClock
from tidegate.config.sinks import OutputMode, PostgresSink
from tidegate.errors import StoreFenced
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import Plan
from tidegate.store import open_store
from tidegate.store.base import Amendment, Store
from tidegate.store.publication import Publication
from tidegate.store.published import Published

if TYPE_CHECKING:
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]  # each has a fresh database

A, B = TopicPartition("flights", 0), TopicPartition("flights", 1)
PLAN = flights_plan(measures=["flights"], groups=["per_origin"])
Results = dict[tuple[int, str | None], tuple[Any, ...]]


class Sinks:
    """A store with two source partitions, and what its sinks have. `prepared`: whether there are tables for that."""

    def __init__(self, url: str, plan: Plan, *, prepared: bool = True) -> None:
        self.plan, self.sink = plan, PostgresSink.model_validate({"type": "postgres", "url": url})
        self.store: Store = open_store(plan, self.sink, ManualClock())
        self.store.prepare()
        self.epochs = {tp: row.epoch for tp, row in self.store.claim([A, B], "run").items()}
        self.states = {A: PartitionState(), B: PartitionState()}
        self.published = self.again() if prepared else Published(plan, self.sink)

    def again(self) -> Published:
        """As the next process would open it."""
        opened = Published(self.plan, self.sink)
        opened.prepare()
        return opened

    def write(self, tp: TopicPartition, *records: Flight) -> None:
        batch = batch_of(self.plan, tp, records, before=self.states[tp], epoch=self.epochs[tp])
        self.store.write(batch)
        self.states[tp] = batch.state

    def next(self, published: Published | None = None, sink: str = "kafka") -> Publication | None:
        return (published or self.published).plan(sink, self.epochs)

    def read(self, publication: Publication, mode: OutputMode = "update", touched: pa.Table | None = None) -> Results:
        """(window start, origin) → (flights, revision, upto, final)."""
        table = self.published.results(publication, self.plan.aggregations[0], mode, touched)
        shown = [(r["flights"], r["revision"], json.loads(r["upto"]), r["final"]) for r in table.to_pylist()]
        keys = zip(table["window_start"].to_pylist(), table["origin"].to_pylist(), strict=True)
        found = dict(zip(keys, shown, strict=True))
        assert len(found) == table.num_rows
        return found

    def give(self, mode: OutputMode = "update") -> Results:
        """All that the sink lacks, in one publication."""
        publication = self.next()
        if publication is None:
            return {}
        found = self.read(publication, mode)
        self.published.done(publication)
        return found


@pytest.fixture
def opened(postgres: Database) -> Iterator[Callable[..., Sinks]]:
    made: list[Sinks] = []

    def open_(plan: Plan = PLAN) -> Sinks:
        made.append(Sinks(postgres.url, plan))
        return made[-1]

    yield open_
    for one in made:
        one.published.close()
        one.store.close()


def test_results_are_those_of_the_view(opened: Callable[..., Sinks], postgres: Database) -> None:
    """Every measure, with nulls in every column, over two partitions and three lanes: what plain Python says, as typed as the
    plan says; records and revision are the view's, and `upto` is of each source partition."""
    sinks = opened(flights_plan())
    records, others = flights(150, seed=1), flights(150, seed=2, first=40)
    sinks.write(A, *records[:90])
    sinks.write(A, *records[90:])
    sinks.write(B, *others)
    publication = sinks.next()
    assert publication is not None
    for aggregation in sinks.plan.aggregations:
        group = [column.name for column in aggregation.group]
        expected = truth(aggregation, [*records, *others])
        for mode in ("update", "complete"):
            table = sinks.published.results(publication, aggregation, mode, None)
            assert [table.schema.field(m.name).type for m in aggregation.measures] == [
                m.result_type for m in aggregation.measures
            ]
            assert table.num_rows == len(expected)
            for row in table.to_pylist():
                wanted = expected[row["window_start"], *(row[name] for name in group)]
                for name, result in wanted.items():
                    near = math.isclose(row[name], result, rel_tol=1e-9) if isinstance(result, float) else False
                    assert near or row[name] == result, (aggregation.name, name)
        with psycopg.connect(postgres.url) as connection:
            sums = f"SELECT sum(records), sum(revision), max(upto) FROM {aggregation.name}"
            view = connection.execute(sums.encode()).fetchone()
        uptos = [offset for text in table["upto"].to_pylist() for offset in json.loads(text).values()]
        assert view == (sum(table["records"].to_pylist()), sum(table["revision"].to_pylist()), max(uptos))
        assert {name for text in table["upto"].to_pylist() for name in json.loads(text)} == {"flights-0", "flights-1"}


def test_a_sink_gets_what_has_changed_since(opened: Callable[..., Sinks]) -> None:
    """First all, then nothing, then the windows and groups with newer records, with their totals over all partitions; each
    time under a larger version."""
    sinks = opened()
    assert sinks.next() is None
    sinks.write(A, Flight(3), Flight(5, origin=None))
    sinks.write(B, Flight(0))
    assert sinks.give() == {
        (START, "EWR"): (2, 2, {"flights-0": 3, "flights-1": 0}, False),
        (START, None): (1, 1, {"flights-0": 5}, False),
    }
    assert sinks.give() == {}
    sinks.write(B, Flight(1), Flight(2, time=START + SIZE))
    publication = sinks.next()
    assert publication is not None
    assert publication.version == 2
    assert sinks.read(publication) == {
        (START, "EWR"): (3, 3, {"flights-0": 3, "flights-1": 1}, False),
        (START + SIZE, "EWR"): (1, 1, {"flights-1": 2}, False),
    }


def test_what_a_micro_batch_has_touched_need_not_be_looked_for(opened: Callable[..., Sinks]) -> None:
    """Given windows and groups, nulls among them and twice the same, give the same results as those that are found."""
    sinks = opened()
    sinks.write(A, Flight(1), Flight(2, origin="JFK"))
    sinks.give()
    batch = [Flight(3, origin=None), Flight(4), Flight(5, lane="replay")]
    sinks.write(A, *batch)
    publication = sinks.next()
    assert publication is not None
    touched = deltas(PLAN, batch)["per_origin"].select(["window_start", "window_end", "origin"])
    found = sinks.read(publication, touched=touched)
    assert found.keys() == {(START, None), (START, "EWR")}
    assert found == sinks.read(publication)


def test_a_publication_that_came_to_no_end_is_made_again(opened: Callable[..., Sinks]) -> None:
    """Another process finds the same version with the same windows and groups; what has changed meanwhile is newer in it, and
    comes once more under the next version."""
    sinks = opened()
    sinks.write(A, Flight(1), Flight(2, origin="JFK"))
    first = sinks.next()
    sinks.write(A, Flight(3))
    other = sinks.again()
    again = sinks.next(other)
    assert again is not None
    assert again == first
    assert {key: row[1] for key, row in sinks.read(again).items()} == {(START, "EWR"): 2, (START, "JFK"): 1}
    other.done(again)
    other.done(again)  # as after an answer that was lost
    newer = sinks.next(other)
    assert newer is not None
    assert newer.version == 2
    assert sinks.read(newer).keys() == {(START, "EWR")}
    other.close()


def test_sinks_do_not_know_of_each_other(opened: Callable[..., Sinks]) -> None:
    """A sink that is new gets everything, from its version 1 on."""
    sinks = opened()
    sinks.write(A, Flight(1))
    sinks.give()
    publication = sinks.next(sink="delta")
    assert publication is not None
    assert (publication.version, sinks.read(publication).keys()) == (1, {(START, "EWR")})


def test_late_records_that_were_brought_in_are_found(opened: Callable[..., Sinks]) -> None:
    """Their offsets are before what the sink has: those of the lane `late` count from where the last amendment ended."""
    sinks = opened()
    sinks.write(A, Flight(5), Flight(6, time=START + 5 * SIZE))
    sinks.give()
    late = deltas(PLAN, [Flight(2, lane="late")])
    sinks.store.amend(Amendment(A, "backfill", -1, 6, late, {}))
    publication = sinks.next()
    assert publication is not None
    assert publication.amended
    assert sinks.read(publication) == {(START, "EWR"): (2, 2, {"flights-0": 5}, False)}
    sinks.published.done(publication)
    assert sinks.next() is None


def test_append_gives_a_result_once_its_window_has_closed(opened: Callable[..., Sinks]) -> None:
    """Not before the watermark of the pipeline, the least of its partitions', has passed its end; then once; and once more,
    with a larger revision, for a correction."""
    sinks = opened()
    last = START + SIZE + DELAY
    sinks.write(A, Flight(1), Flight(2, time=last))
    assert sinks.give("append") == {}  # the other partition has seen nothing
    sinks.write(B, Flight(1, time=last - 1))
    assert sinks.give("append") == {}  # a millisecond early
    sinks.write(B, Flight(2, time=last))
    assert sinks.give("append") == {(START, "EWR"): (1, 1, {"flights-0": 1}, True)}
    sinks.write(B, Flight(3, time=last))
    assert sinks.give("append") == {}
    sinks.write(A, Flight(3))
    assert sinks.give("append") == {(START, "EWR"): (2, 2, {"flights-0": 3}, True)}


def test_update_says_that_a_window_has_closed(opened: Callable[..., Sinks]) -> None:
    """A result that did not change comes again as final, once; and stays final when a partition that was idle wakes up."""
    sinks = opened()
    sinks.write(A, Flight(1))
    assert [row[3] for row in sinks.give().values()] == [False]
    sinks.store.set_idle([A, B], True)
    assert sinks.give() == {(START, "EWR"): (1, 1, {"flights-0": 1}, True)}
    assert sinks.give() == {}
    sinks.states[B] = replace(sinks.states[B], idle=True)
    sinks.write(B, Flight(1, time=START + 1))
    assert sinks.give() == {(START, "EWR"): (2, 2, {"flights-0": 1, "flights-1": 1}, True)}


def test_complete_gives_all_results_whenever_one_has_changed(opened: Callable[..., Sinks]) -> None:
    """Those that did not change too; nothing when nothing did."""
    sinks = opened()
    sinks.write(A, Flight(1), Flight(2, origin="JFK"))
    assert len(sinks.give("complete")) == 2
    sinks.write(A, Flight(3))
    assert {key: row[0] for key, row in sinks.give("complete").items()} == {(START, "EWR"): 2, (START, "JFK"): 1}
    assert sinks.next() is None


def test_whoever_has_lost_a_partition_publishes_nothing(opened: Callable[..., Sinks]) -> None:
    """The totals that a run reads may be older than what the new owner sends; and of two runs the older one moves nothing on."""
    sinks = opened()
    sinks.write(A, Flight(1))
    publication = sinks.next()
    assert publication is not None
    other = sinks.again()
    sinks.store.claim([B], "worker")
    with pytest.raises(StoreFenced, match="flights-1: worker has the partition"):
        sinks.next()
    sinks.epochs[B] += 1
    again = sinks.next(other)
    assert again is not None
    other.done(again)
    sinks.write(A, Flight(2))
    assert sinks.next(other) is not None
    with pytest.raises(StoreFenced, match="another run has published version 2"):
        sinks.published.done(publication)
    other.close()


@pytest.mark.parametrize("under_way", [False, True], ids=["between two publications", "in one of the next run"])
def test_what_a_run_has_written_too_late_is_written_again(opened: Callable[..., Sinks], under_way: bool) -> None:
    """It was paused while it wrote, and the next run has given the sink newer results meanwhile, which stand behind its own now:
    with the next publication the newest of all that changed since it began come once more. What was final is so."""
    sinks = opened()
    sinks.write(A, Flight(1), Flight(2, time=START + SIZE))
    sinks.give()
    sinks.write(A, Flight(3))
    sinks.store.set_idle([A, B], True)
    late = sinks.next()
    assert late is not None
    again = sinks.next(sinks.published)
    assert again == late
    sinks.published.done(again)
    sinks.write(A, Flight(4), Flight(5, time=START + 2 * SIZE))
    newer = sinks.next()
    assert newer is not None
    if not under_way:
        sinks.published.done(newer)
    with pytest.raises(StoreFenced, match="another run has published version 3"):
        sinks.published.done(late)
    if under_way:
        assert sinks.next() == replace(newer, before=late.before)
        sinks.published.done(newer)
    assert sinks.give() == {
        (START, "EWR"): (3, 3, {"flights-0": 4}, True),
        (START + 2 * SIZE, "EWR"): (1, 1, {"flights-0": 5}, False),
    }
    assert sinks.give() == {}
