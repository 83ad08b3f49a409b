"""What every store promises: one suite, two databases."""

from __future__ import annotations

import math
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.contract.store_records import (
    DELAY,
    GROUPS,
    SIZE,
    START,
    Flight,
    batch_of,
    deltas,
    flights_plan,
    truth,
    window_of,
)
from tidegate.clock import ManualClock
from tidegate.config.sinks import PostgresSink, SqliteSink
from tidegate.config.stages import Dedupe
from tidegate.errors import ConfigError, SinkRecordError, StoreFenced, StoreHeld
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import LATE_WINDOWS_SCHEMA, PartitionState
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.store import open_store
from tidegate.store import postgres as postgres_module
from tidegate.store import seen as seen_module
from tidegate.store.base import Store, StoreBatch
from tidegate.store.seen import SEEN_SCHEMA, seen_table

if TYPE_CHECKING:
    from tests.providers.postgres import Database

TP, OTHER = TopicPartition("flights", 0), TopicPartition("flights", 1)
Open = Callable[..., Store]
_ATTEMPTS = count()


def flights(count: int, seed: int = 1, first: int = 0) -> list[Flight]:
    """Records over four windows with a null now and then in every column."""
    rng = random.Random(seed)

    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.15 else value

    return [
        Flight(
            offset,
            START + rng.randrange(4 * SIZE),
            maybe(rng.choice(["EWR", "JFK", "", "Zürich ✈", 'a,"b"\n\\c', "a%s:x"])),
            maybe(date(2013, 1, rng.randint(1, 3))),
            maybe(rng.randint(-(2**62), 2**62)),
            maybe(Decimal(rng.randint(-99_999_999, 99_999_999)).scaleb(-2)),
            maybe(rng.uniform(-1e6, 1e6)),
            maybe(f"N{rng.randrange(40)}{rng.choice(['', 'é', '߷'])}"),
            maybe(rng.random() < 0.5),
            maybe(datetime(2013, 1, 1, rng.randrange(24), 5, 6, 789_012)),  # noqa: DTZ001 (naive, always UTC)
            maybe(rng.randbytes(5)),
            rng.choice(["live", "live", "live", "late", "replay"]),
        )
        for offset in range(first, first + count)
    ]


class StoreSuite(ABC):
    """The contract of tidegate.store.base.Store."""

    @pytest.fixture
    @abstractmethod
    def opened(self) -> Open:
        """`opened(plan)` gives a prepared store; again for the same database, as another worker would."""

    @abstractmethod
    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Read the database as a person would."""

    @abstractmethod
    def value(self, stored: Any, type_: pa.DataType) -> Any:
        """A value of a result as Python has it."""

    @abstractmethod
    def refused(self) -> tuple[Flight, ...]:
        """Records whose delta this database refuses."""

    def results(self, plan: AggregationPlan) -> dict[tuple[Any, ...], dict[str, Any]]:
        """(window start in ms, group…) → measure → result, from the view."""
        names = ["window_start", *(column.name for column in plan.group), *(one.name for one in plan.measures)]
        types = [pa.timestamp("ms"), *(column.type for column in plan.group), *(m.result_type for m in plan.measures)]
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in self.query(f"SELECT {', '.join(names)} FROM {plan.name}"):
            values = [self.value(stored, type_) for stored, type_ in zip(row, types, strict=True)]
            key = (int(values[0].replace(tzinfo=UTC).timestamp() * 1000), *values[1 : 1 + len(plan.group)])
            assert key not in found
            found[key] = dict(zip(names[1 + len(plan.group) :], values[1 + len(plan.group) :], strict=True))
        return found

    def assert_true(self, plan: Plan, written: list[Flight]) -> None:
        """The views say what plain Python says of all records at once."""
        for aggregation in plan.aggregations:
            found, expected = self.results(aggregation), truth(aggregation, written)
            assert found.keys() == expected.keys()
            for key, measures in expected.items():
                for name, result in measures.items():
                    near = math.isclose(found[key][name], result, rel_tol=1e-9) if isinstance(result, float) else False
                    assert near or found[key][name] == result, (aggregation.name, key, name)

    # Partition rows.

    def test_a_first_claim_creates_the_row(self, opened: Open) -> None:
        """A partition nobody had starts before offset 0, with epoch 1 and no previous owner."""
        row = opened(flights_plan()).claim([TP], "w1")[TP]
        assert (row.tp, row.state, row.epoch, row.owner) == (TP, PartitionState(), 1, "")

    def test_a_claim_takes_the_partition_over(self, opened: Open) -> None:
        """Each claim raises the epoch and names who had the partition before."""
        plan = flights_plan()
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        rows = opened(plan).claim([OTHER, TP], "w2")
        assert [(rows[tp].epoch, rows[tp].owner) for tp in (TP, OTHER)] == [(2, "w1"), (2, "w1")]
        assert [(row.tp, row.epoch, row.owner) for row in store.partitions()] == [(TP, 2, "w2"), (OTHER, 2, "w2")]

    def test_partition_rows_move_with_the_results(self, opened: Open) -> None:
        """Offset, high water, dedupe clock, ledger, the topic's id, the lines of what waits and the replays that were there are
        what the batch said, read back by anyone; lines that are done are gone."""
        store = opened(flights_plan())
        store.claim([TP], "w1")
        ledger = Ledger(36, 1, 2, 3, 4, 5, 6, 15, 9)
        carried = {"topic_id": "ISPDDGvUTi6qXfro6PdaRg", "lines": b"\x81\x00", "replays": b"\x90\x00"}
        state = PartitionState(41, START, START + 5, ledger, idle=True, **carried)
        store.write(StoreBatch(TP, 1, -1, state))
        assert [row.state for row in store.partitions()] == [state]
        after = replace(state, upto=42, lines=b"", replays=b"")
        store.write(StoreBatch(TP, 1, 41, after))
        assert [row.state for row in store.partitions()] == [after]

    def test_pipelines_do_not_see_each_other(self, opened: Open) -> None:
        """Two pipelines in one database have partition rows of their own."""
        opened(flights_plan("one", groups=["overall"])).claim([TP], "w1")
        other = opened(flights_plan("two", groups=["per_origin"]))
        assert other.partitions() == []

    # Writing.

    def test_batches_add_up_to_the_truth(self, opened: Open) -> None:
        """Every measure of every type, over several batches with nulls, lanes and hard text, equals plain Python."""
        plan, written = flights_plan(), flights(300)
        store = opened(plan)
        store.claim([TP], "w1")
        state = PartitionState()
        for start in range(0, 300, 60):
            batch = batch_of(plan, TP, written[start : start + 60], before=state)
            store.write(batch)
            state = batch.state
        self.assert_true(plan, written)

    def test_partitions_add_up_in_the_view(self, opened: Open) -> None:
        """One group in two source partitions is one result row; what is tied in time and offset is decided by value."""
        plan = flights_plan()
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        mine, theirs = flights(80), flights(80, seed=2)
        for tp, written in ((TP, mine), (OTHER, theirs)):
            store.write(batch_of(plan, tp, written))
        self.assert_true(plan, [*mine, *theirs])

    def test_several_partitions_in_one_transaction(self, opened: Open) -> None:
        """Every measure of groups that two partitions share, written together and again, equals plain Python."""
        plan = flights_plan()
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        parts = {TP: flights(120), OTHER: flights(120, seed=2)}
        before = dict.fromkeys(parts, PartitionState())
        for start in (0, 60):
            batches = [batch_of(plan, tp, of[start : start + 60], before=before[tp]) for tp, of in parts.items()]
            store.write(*reversed(batches))
            before = {batch.tp: batch.state for batch in batches}
        self.assert_true(plan, [one for of in parts.values() for one in of])

    def test_one_that_is_fenced_keeps_all_from_being_written(self, opened: Open) -> None:
        """A write of several partitions is all of them or none."""
        plan = flights_plan(measures=["flights"])
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        opened(plan).claim([OTHER], "w2")
        with pytest.raises(StoreFenced, match="w2"):
            store.write(batch_of(plan, TP, flights(20)), batch_of(plan, OTHER, flights(20)))
        assert [row.state for row in store.partitions()] == [PartitionState()] * 2
        self.assert_true(plan, [])

    def test_a_refusal_names_its_partition(self, opened: Open) -> None:
        """Of several partitions it is said in which one the guilty rows are; nothing is written."""
        plan = flights_plan()
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        bad = [replace(one, offset=offset) for offset, one in enumerate(self.refused(), start=20)]
        with pytest.raises(SinkRecordError) as error:
            store.write(batch_of(plan, TP, flights(20)), batch_of(plan, OTHER, [*flights(20), *bad]))
        assert error.value.tp == OTHER
        assert error.value.rows
        self.assert_true(plan, [])

    # Dedupe's memory.

    def test_what_was_seen_is_remembered_for_the_horizon(self, opened: Open) -> None:
        """Per partition; the newest time of a key holds; what is older than the horizon behind the clock is forgotten."""
        store = opened(flights_plan(measures=["flights"], horizon=100))
        store.claim([TP, OTHER], "w1")
        keys = [b"a", b"b", b"\xff\x00c", b"", b'"d,\n']
        first = PartitionState(5, dedupe_clock=1000)
        store.write(StoreBatch(TP, 1, -1, first, seen=pa.table([keys, [1000, 950, 900, 920, 999]], schema=SEEN_SCHEMA)))
        assert store.seen(TP, [b"x", *keys]) == [None, 1000, 950, 900, 920, 999]
        assert store.seen(OTHER, keys) == [None] * len(keys)
        second = PartitionState(9, dedupe_clock=1021)
        store.write(StoreBatch(TP, 1, 5, second, seen=pa.table([[b"b", b""], [1021, 921]], schema=SEEN_SCHEMA)))
        assert store.seen(TP, keys) == [1000, 1021, None, 921, 999]

    def test_it_is_known_whether_the_memory_is_whole(self, opened: Open) -> None:
        """`seen_upto` is where the last writer that remembers in the store has come to."""
        store = opened(flights_plan(measures=["flights"], horizon=100))
        assert store.claim([TP], "w1")[TP].seen_upto == -1
        store.write(StoreBatch(TP, 1, -1, PartitionState(5), seen=SEEN_SCHEMA.empty_table()))
        store.write(StoreBatch(TP, 1, 5, PartitionState(8)))
        assert store.claim([TP], "w2")[TP].seen_upto == 5

    def test_a_distinct_value_in_two_places_counts_once(self, opened: Open) -> None:
        """Distinct counts are of the union over batches, lanes and partitions, not their sum."""
        plan = flights_plan(measures=["tails"])
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        one = batch_of(plan, TP, [Flight(0, tail="A"), Flight(1, tail="B", lane="late")])
        store.write(one)
        store.write(batch_of(plan, TP, [Flight(2, tail="A", lane="replay")], before=one.state))
        store.write(batch_of(plan, OTHER, [Flight(0, tail="B"), Flight(1, tail="C")]))
        assert self.results(plan.aggregations[0]) == {(START, "EWR"): {"tails": 3}}

    @pytest.mark.slow
    def test_distinct_counts_do_not_depend_on_batches(self, opened: Open) -> None:
        """5 000 different values give the same estimate from one batch as from seven, and it is within 5 %."""
        plan = flights_plan(measures=["tails"], groups=["overall"])
        store = opened(plan)
        rows = [Flight(offset, tail=f"N{offset}") for offset in range(5_000)]
        store.claim([TP], "w1")
        state = PartitionState()
        for start in range(0, 5_000, 750):
            batch = batch_of(plan, TP, rows[start : start + 750], before=state)
            store.write(batch)
            state = batch.state
        pieces = self.results(plan.aggregations[0])[START,]["tails"]
        whole = flights_plan(measures=["tails"], groups=["per_origin"])
        other = opened(whole)
        other.write(StoreBatch(TP, other.claim([TP], "w2")[TP].epoch, 4_999, state, deltas(whole, rows)))
        assert self.results(whole.aggregations[0])[START, "EWR"]["tails"] == pieces
        assert abs(pieces - 5_000) < 250

    def test_revision_records_and_upto(self, opened: Open) -> None:
        """A result's revision grows with every batch that touches it; it says how many records, up to which offset."""
        plan = flights_plan(groups=["overall"])
        store = opened(plan)
        store.claim([TP], "w1")
        first = batch_of(plan, TP, [Flight(3), Flight(7)])
        store.write(first)
        store.write(batch_of(plan, TP, [Flight(9)], before=first.state))
        assert self.query("SELECT records, upto, revision FROM overall") == [(3, 9, 2)]

    def test_late_windows_add_up(self, opened: Open) -> None:
        """What windows miss is added up per aggregation, window and source partition, in the batch's transaction."""
        plan = flights_plan()
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        first = batch_of(plan, TP, [Flight(0)], late=[("per_origin", START, 2), ("per_origin", START, 1)])
        store.write(first)
        store.write(
            batch_of(plan, TP, [Flight(1)], before=first.state, late=[("per_origin", START, 4), ("overall", 0, 1)])
        )
        store.write(batch_of(plan, OTHER, [Flight(0)], late=[("per_origin", START, 8)]))
        found = self.query("SELECT aggregation, topic, partition, missing FROM tidegate_late_windows ORDER BY 1, 2, 3")
        assert found == [("overall", "flights", 0, 1), ("per_origin", "flights", 0, 7), ("per_origin", "flights", 1, 8)]

    def test_a_window_before_all_calendars_does_not_stop_a_batch(self, opened: Open) -> None:
        """A late record with an absurd event time is counted like any other."""
        plan = flights_plan(groups=["overall"])
        store = opened(plan)
        store.claim([TP], "w1")
        store.write(batch_of(plan, TP, [Flight(0)], late=[("overall", -(2**53), 2), ("overall", -(2**52), 3)]))
        assert self.query("SELECT sum(missing) FROM tidegate_late_windows") == [(5,)]

    def test_an_infinity_is_kept_or_refused(self, opened: Open) -> None:
        """A double that is not finite is stored as it is, or its row is refused; never changed."""
        plan = flights_plan(measures=["miles_max"], groups=["overall"])
        store = opened(plan)
        store.claim([TP], "w1")
        [outcome] = _at_once([partial(store.write, batch_of(plan, TP, [Flight(0, miles=math.inf)]))])
        stored = self.results(plan.aggregations[0])
        if outcome is None:
            assert stored == {(START,): {"miles_max": math.inf}}
        else:
            assert isinstance(outcome, SinkRecordError)
            assert (outcome.rows, stored) == ((0,), {})

    @pytest.mark.slow
    @settings(
        max_examples=15,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # not shrunk: that takes minutes, and says no more
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(cuts=st.sets(st.integers(1, 39)), seed=st.integers(0, 999_999))
    def test_any_cut_into_batches_gives_the_same_totals(self, opened: Open, cuts: set[int], seed: int) -> None:
        """However the records are cut into batches, the results are the truth and the ledger is the count."""
        table = f"t{next(_ATTEMPTS)}"  # hypothesis tries an example that failed again, which must find nothing there
        plan = flights_plan(table, groups=["per_origin"])
        with closing(opened(plan, {"per_origin": table})) as store:
            store.claim([TP], "w1")
            written, state = flights(40, seed), store.partitions()[0].state
            for start, stop in pairwise([0, *sorted(cuts), 40]):
                batch = batch_of(plan, TP, written[start:stop], before=state)
                store.write(batch)
                state = batch.state
            self.assert_true(replace(plan, aggregations=(replace(plan.aggregations[0], name=table),)), written)
            assert store.partitions()[0].state.ledger == Ledger(read=40, accepted=40)

    # Answers.

    def answers(self, store: Store, *tps: TopicPartition) -> list[bytes | None]:
        """What a claim finds of the last batches."""
        rows = store.claim(tps, "asking")
        return [rows[tp].answers for tp in tps]

    def test_the_answers_of_the_last_batch_come_with_the_claim(self, opened: Open) -> None:
        """Each batch's answers stand in for those before; other partitions and pipelines have their own or none."""
        plan = flights_plan(groups=["overall"])
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        assert self.answers(opened(plan), TP, OTHER) == [None, None]
        first = batch_of(plan, TP, flights(5), epoch=2)
        store.write(replace(first, answers=b"\x00first\xff"))
        second = batch_of(plan, TP, flights(5, first=5), before=first.state, epoch=2)
        store.write(replace(second, answers=b"second"))
        store.write(replace(batch_of(plan, OTHER, flights(5), epoch=2), answers=b""))
        assert [row.answers for row in store.partitions()] == [None, None]
        assert self.answers(store, OTHER, TP) == [b"", b"second"]
        other = opened(flights_plan("other", groups=["per_origin"]))
        assert self.answers(other, TP) == [None]

    def test_a_batch_without_answers_has_none(self, opened: Open) -> None:
        """Those of the batch before are of no use to anyone, and are not given."""
        plan = flights_plan(groups=["overall"])
        store = opened(plan)
        store.claim([TP], "w1")
        first = batch_of(plan, TP, flights(5))
        store.write(replace(first, answers=b"first"))
        store.write(batch_of(plan, TP, flights(5, first=5), before=first.state))
        assert self.answers(store, TP) == [None]

    def test_answers_are_written_with_the_batch_or_not_at_all(self, opened: Open) -> None:
        """Neither a refused batch nor a zombie's leaves answers behind."""
        plan = flights_plan(groups=["per_origin"])
        zombie, store = opened(plan), opened(plan)
        zombie.claim([TP], "w1")
        store.claim([TP], "w2")
        first = batch_of(plan, TP, flights(5), epoch=2)
        store.write(replace(first, answers=b"first"))
        before = self.everything()
        with pytest.raises(SinkRecordError):
            store.write(replace(batch_of(plan, TP, self.refused(), before=first.state, epoch=2), answers=b"refused"))
        with pytest.raises(StoreFenced):
            zombie.write(replace(batch_of(plan, TP, flights(5, first=5), before=first.state), answers=b"zombie"))
        assert self.everything() == before
        assert self.answers(store, TP) == [b"first"]

    # Fencing.

    def test_a_repeated_batch_changes_nothing(self, opened: Open) -> None:
        """A batch that was written already is fenced, and the error tells both sides' facts."""
        plan = flights_plan()
        store = opened(plan)
        store.claim([TP], "w1")
        batch = batch_of(plan, TP, flights(20), late=[("overall", START, 1)])
        store.write(batch)
        before = self.everything()
        with pytest.raises(StoreFenced, match=r"flights-0: .* from upto -1 .* upto 19 and epoch 1.*'w1'"):
            store.write(batch)
        assert self.everything() == before

    def test_a_zombie_is_fenced(self, opened: Open) -> None:
        """Who lost the partition to another owner writes nothing more, even from the right offset."""
        plan = flights_plan()
        zombie, owner = opened(plan), opened(plan)
        zombie.claim([TP], "w1")
        owner.claim([TP], "w2")
        before = self.everything()
        with pytest.raises(StoreFenced, match=r"epoch 1, but the store has upto -1 and epoch 2, owner 'w2'"):
            zombie.write(batch_of(plan, TP, flights(5)))
        assert self.everything() == before
        owner.write(batch_of(plan, TP, flights(5), epoch=2))

    def test_a_partition_that_was_not_claimed_is_refused(self, opened: Open) -> None:
        """Without a claim there is no row to compare with."""
        plan = flights_plan()
        with pytest.raises(StoreFenced, match="claim it first"):
            opened(plan).write(batch_of(plan, TP, flights(1)))

    @pytest.mark.slow
    def test_of_two_writers_exactly_one_wins(self, opened: Open) -> None:
        """Two threads with the same batch: one writes it, the other is fenced, ten times over."""
        plan, state = flights_plan(groups=["per_origin"]), PartitionState()
        stores = [opened(plan), opened(plan)]
        stores[0].claim([TP], "w1")
        written: list[Flight] = []
        for turn in range(10):
            more = flights(20, seed=turn, first=turn * 20)
            batch = batch_of(plan, TP, more, before=state)
            outcomes = _at_once([partial(store.write, batch) for store in stores])
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "StoreFenced"]
            written, state = [*written, *more], batch.state
        self.assert_true(plan, written)

    @pytest.mark.slow
    def test_partitions_that_share_groups_commit_side_by_side(self, opened: Open) -> None:
        """Two threads that write the same groups from two partitions lose no distinct value and never deadlock."""
        plan = flights_plan(measures=["tails", "flights"])
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        written = {tp: flights(200, seed=seed) for tp, seed in ((TP, 1), (OTHER, 2))}

        def write(tp: TopicPartition) -> None:
            state = PartitionState()
            for start in range(0, 200, 20):
                batch = batch_of(plan, tp, written[tp][start : start + 20], before=state)
                store.write(batch)
                state = batch.state

        assert _at_once([partial(write, TP), partial(write, OTHER)]) == [None, None]
        self.assert_true(plan, [*written[TP], *written[OTHER]])

    # Refusals.

    def test_refused_values_are_found(self, opened: Open) -> None:
        """Exactly the refused rows are named, nothing is written, and without them the batch goes in."""
        plan = flights_plan(groups=["per_origin"])
        store = opened(plan)
        store.claim([TP], "w1")
        good = [Flight(offset, origin=f"o{offset:02}") for offset in range(30)]
        bad = self.refused()
        mixed = [*good[:9], bad[0], *good[9:20], *bad[1:], *good[20:]]
        before = self.everything()
        with pytest.raises(SinkRecordError, match="aggregation 'per_origin': the database refuses") as caught:
            store.write(batch_of(plan, TP, mixed))
        assert caught.value.aggregation == "per_origin"
        assert caught.value.rows == tuple(index for index, flight in enumerate(mixed) if flight in bad)
        assert self.everything() == before
        store.write(batch_of(plan, TP, good))
        self.assert_true(plan, good)

    def test_a_sum_that_outgrows_its_column_is_refused(self, opened: Open) -> None:
        """39 digits do not fit: the row that would make them is named, the sum stays what it was."""
        plan = flights_plan(measures=["delay_sum"], groups=["overall", "per_origin"])
        store = opened(plan)
        store.claim([TP], "w1")
        huge = {name: _with_sum(table, 10**38 - 2) for name, table in deltas(plan, [Flight(0, delay=1)]).items()}
        state = PartitionState(0)
        store.write(StoreBatch(TP, 1, -1, state, huge))
        with pytest.raises(SinkRecordError) as caught:
            store.write(batch_of(plan, TP, [Flight(1, START + SIZE, delay=5), Flight(2, delay=5)], before=state))
        assert (caught.value.aggregation, caught.value.rows) == ("overall", (1,))
        store.write(batch_of(plan, TP, [Flight(1, delay=1)], before=state))
        assert self.results(plan.aggregations[0]) == {(START,): {"delay_sum": Decimal(10**38 - 1)}}

    # Reading back.

    def test_open_windows_are_read_back_with_lanes_added_up(self, opened: Open) -> None:
        """A new owner gets the partials of its own partition, of windows that are open, in the plan's types."""
        plan, written = flights_plan(), flights(120)
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        store.write(batch_of(plan, TP, written))
        store.write(batch_of(plan, OTHER, flights(50, seed=3)))
        for aggregation in plan.aggregations:
            chunks = list(store.windows(TP, aggregation.name, open_after=START + 2 * SIZE))
            live = [replace(f, lane="live") for f in written if window_of(f) >= START + 2 * SIZE]
            expected = deltas(plan, live)[aggregation.name]
            found = pa.concat_tables(chunks)
            partials = [partial.name for partial in aggregation.partials]
            keys, tail = ["window_start", "window_end", *(c.name for c in aggregation.group)], ["records", "upto"]
            assert found.column_names == [*keys, *partials, *tail, "revision"]
            for name in expected.column_names:
                assert name == "lane" or found.schema.field(name).type == expected.schema.field(name).type
            assert _rows(found, aggregation) == _rows(expected, aggregation)

    def test_no_open_window_is_no_chunk(self, opened: Open) -> None:
        """A partition without open windows gives nothing."""
        store = opened(flights_plan())
        assert list(store.windows(TP, "overall", open_after=0)) == []

    def test_what_has_changed_is_read_back(self, opened: Open) -> None:
        """Only groups with records of later offsets, but with all that they have."""
        plan = flights_plan(measures=["flights"], groups=["per_origin"])
        store = opened(plan)
        store.claim([TP], "w1")
        before = batch_of(plan, TP, [Flight(0, origin="JFK"), Flight(1, origin="EWR")])
        store.write(before)
        store.write(batch_of(plan, TP, [Flight(2, origin="JFK"), Flight(3, START + SIZE)], before=before.state))
        found = pa.concat_tables(store.windows(TP, "per_origin", open_after=None, changed_after=1))
        rows = found.select(["window_start", "origin", "records", "upto"]).to_pylist()
        assert sorted((row["window_start"], row["origin"], row["records"], row["upto"]) for row in rows) == [
            (START, "JFK", 2, 2),
            (START + SIZE, Flight(3).origin, 1, 3),
        ]

    def test_late_windows_are_read_back(self, opened: Open) -> None:
        """Those of the partition, with their bounds in ms; none is an empty table."""
        plan = flights_plan()
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        assert store.late(TP).num_rows == 0
        row = {"aggregation": "overall", "window_start": START, "window_end": START + SIZE, "missing": 2}
        late = pa.Table.from_pylist([row], schema=LATE_WINDOWS_SCHEMA)
        for tp in (TP, OTHER):
            store.write(StoreBatch(tp, 1, -1, PartitionState(0), late_windows=late))
        assert (store.late(TP).schema, store.late(TP).to_pylist()) == (LATE_WINDOWS_SCHEMA, [row])

    def test_dedupe_s_memory_is_read_back(self, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        """In chunks, each key once, whatever bytes it has; and the row says up to where the memory has no gap."""
        monkeypatch.setattr(seen_module, "_CHUNK", 3)
        plan = flights_plan()
        pipeline = plan.pipeline.model_copy(update={"dedupe": Dedupe(key="flight", horizon=10)})
        store = opened(replace(plan, pipeline=pipeline))
        row = store.claim([TP], "w1")[TP]
        pairs = [(bytes([number, 0, 39, 255]), number) for number in range(7)]
        state = PartitionState(6, ledger=Ledger(7, 7))
        store.write(StoreBatch(TP, row.epoch, -1, state, seen=seen_table(pairs)))
        chunks = [chunk.to_pylist() for chunk in store.remembered(TP)]
        assert [len(chunk) for chunk in chunks] == [3, 3, 1]
        assert [(one["key"], one["at"]) for chunk in chunks for one in chunk] == pairs
        for upto, seen, whole in ((7, [], 7), (8, None, 7), (9, [], 7)):
            state, before = replace(state, upto=upto), state
            store.write(StoreBatch(TP, row.epoch, before.upto, state, seen=None if seen is None else seen_table(seen)))
            assert [one.seen_upto for one in store.partitions()] == [whole]

    def test_open_windows_are_counted(self, opened: Open) -> None:
        """Per partition: windows of all aggregations that end after its watermark."""
        plan = flights_plan(groups=["overall", "per_origin"])
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        store.write(batch_of(plan, TP, [Flight(0), Flight(1, START + SIZE), Flight(2, START + SIZE, origin=None)]))
        store.write(batch_of(plan, OTHER, [Flight(0)]))
        assert store.open_windows({TP: START + SIZE, OTHER: None}) == {TP: 2, OTHER: 2}

    # Final results.

    def finals(self) -> list[bool]:
        return [bool(final) for (final,) in self.query("SELECT final FROM overall ORDER BY window_start")]

    def test_a_result_is_final_when_all_partitions_have_passed(self, opened: Open) -> None:
        """The slowest partition decides, by its high water minus the delay; one without records holds all open."""
        plan = flights_plan(groups=["overall"])
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        store.write(batch_of(plan, TP, [Flight(0), Flight(1, START + SIZE + DELAY)]))
        assert self.finals() == [False, False]
        slow = batch_of(plan, OTHER, [Flight(0, START + SIZE + DELAY - 1)])
        store.write(slow)
        assert self.finals() == [False, False]
        store.write(batch_of(plan, OTHER, [Flight(1, START + SIZE + DELAY)], before=slow.state))
        assert self.finals() == [True, False]

    def test_an_idle_partition_holds_nothing_open(self, opened: Open) -> None:
        """Idle partitions do not count; when all are idle every window is final; a record ends it."""
        plan = flights_plan(groups=["overall"])
        store = opened(plan)
        store.claim([TP, OTHER], "w1")
        store.write(batch_of(plan, TP, [Flight(0), Flight(1, START + SIZE + DELAY)]))
        store.set_idle([OTHER], True)
        assert self.finals() == [True, False]
        store.set_idle([TP], True)
        assert self.finals() == [True, True]
        store.write(batch_of(plan, OTHER, [Flight(0)]))
        assert self.finals() == [False, False]

    def test_a_partition_that_nobody_has_opened_holds_windows_open(self, opened: Open) -> None:
        """An expected partition has a row before its first owner comes, and a claimed one stays as it is."""
        plan = flights_plan(groups=["overall"])
        store = opened(plan)
        store.claim([TP], "w1")
        store.write(batch_of(plan, TP, [Flight(0), Flight(1, START + SIZE + DELAY)]))
        assert self.finals() == [True, False]
        store.expect([TP, OTHER], {})
        assert self.finals() == [False, False]
        assert [(row.epoch, row.owner, row.state.upto) for row in store.partitions()] == [(1, "w1", 1), (0, "", -1)]
        claimed = store.claim([OTHER], "w2")[OTHER]
        assert (claimed.epoch, claimed.owner, claimed.state.upto) == (1, "", -1)
        store.set_idle([OTHER], True)
        assert self.finals() == [True, False]

    def test_a_zombie_cannot_say_that_a_partition_is_idle(self, opened: Open) -> None:
        """Who lost the partition, or never had it, has no say in whether it is idle."""
        plan = flights_plan()
        zombie, owner = opened(plan), opened(plan)
        zombie.claim([TP], "w1")
        owner.claim([TP], "w2")
        zombie.set_idle([TP, OTHER], True)
        assert [row.state.idle for row in owner.partitions()] == [False]

    # Holds.

    def test_who_holds_a_pipeline_keeps_everybody_else_out(self, opened: Open) -> None:
        """Others cannot claim, and are told by whom and since when; the holder can, and fences who was there before."""
        plan = flights_plan()
        worker, holder = opened(plan), opened(plan)
        worker.claim([TP], "w1")
        holder.hold("catchup:1", 60_000)
        written = batch_of(plan, TP, flights(30))
        worker.write(written)
        row = holder.claim([TP, OTHER], "catchup:1")[TP]
        assert (row.epoch, row.owner, row.state) == (2, "w1", written.state)
        with pytest.raises(StoreFenced):
            worker.write(batch_of(plan, TP, flights(30, first=30), before=written.state))
        for tp in (TP, OTHER):
            with pytest.raises(StoreHeld, match=r"^held by catchup:1 since \d{4}-\d\d-\d\d"):
                worker.claim([tp], "w1")
        with pytest.raises(StoreHeld):
            worker.hold("catchup:2", 60_000)
        assert [one.epoch for one in holder.partitions()] == [2, 1]
        holder.release_hold("catchup:2")
        holder.release_hold("catchup:1")
        assert worker.claim([TP], "w1")[TP].epoch == 3
        worker.hold("catchup:2", 60_000)

    def test_a_hold_that_nobody_renews_is_over(self, opened: Open) -> None:
        """Whoever claims then ends it, and its holder learns that; renewed in time it goes on since it was taken."""
        plan = flights_plan()
        store = opened(plan)
        store.hold("catchup:1", 1)
        self.pass_by(store, 50)
        assert store.renew_hold("catchup:1", 60_000), "nobody was there meanwhile"
        [(since, until)] = self.query("SELECT since, until FROM tidegate_holds")
        assert until - since >= 60_050
        store.hold("catchup:1", 1)
        assert self.query("SELECT since FROM tidegate_holds") == [(since,)]
        self.pass_by(store, 50)
        store.claim([TP], "w1")
        assert not store.renew_hold("catchup:1", 60_000)
        store.hold("catchup:2", 1)
        self.pass_by(store, 50)
        store.hold("catchup:3", 60_000)
        with pytest.raises(StoreHeld, match="catchup:3"):
            store.claim([TP], "w1")

    def pass_by(self, store: Any, milliseconds: int) -> None:
        """Time, on the database's clock, which for SQLite is the store's."""
        store._rows._clock.advance(milliseconds / 1000)
        time.sleep(milliseconds / 1000)

    def test_what_a_worker_may_have_to_repeat(self, opened: Open) -> None:
        """The last offset of batches that were not complete, and the answers of that one, whatever was written since."""
        plan = flights_plan()
        store = opened(plan)
        row = store.claim([TP], "w1")[TP]
        assert row.worker_upto == -1
        store.write(StoreBatch(TP, row.epoch, -1, PartitionState(4), answers=b"said"))
        store.write(StoreBatch(TP, row.epoch, 4, PartitionState(9), complete=True))
        row = store.claim([TP], "w2")[TP]
        assert (row.worker_upto, row.answers, row.state.upto) == (4, b"said", 9)
        store.write(StoreBatch(TP, row.epoch, 9, PartitionState(12)))
        row = store.claim([TP], "w2")[TP]
        assert (row.worker_upto, row.answers) == (12, None)

    # Setting up.

    def test_preparing_twice_changes_nothing(self, opened: Open) -> None:
        """A worker that starts again finds its tables and its results."""
        plan = flights_plan()
        store = opened(plan)
        store.claim([TP], "w1")
        store.write(batch_of(plan, TP, flights(30)))
        opened(plan)
        self.assert_true(plan, flights(30))

    def test_a_table_of_an_older_version_gets_the_columns_that_have_come_since(self, opened: Open) -> None:
        """Its rows keep what they say, say of no topic that it is another, and that all may have been a worker's."""
        plan = flights_plan()
        store: Any = opened(plan)
        store.claim([TP], "w1")
        written = batch_of(plan, TP, flights(30))
        store.write(written)
        with store._engine.begin() as connection:
            for column in ("topic_id", "worker_upto", "lines", "replays", "replayed"):
                connection.exec_driver_sql(f"ALTER TABLE tidegate_partitions DROP COLUMN {column}")
        again = opened(plan)
        assert [row.state for row in again.partitions()] == [replace(written.state, topic_id="")]
        assert again.claim([TP], "w1")[TP].worker_upto == written.state.upto

    def test_partitions_before_the_first_start(self, unprepared: Open) -> None:
        """Who asks before any worker ran is told that there is nothing."""
        store = unprepared(flights_plan())
        assert store.partitions() == []
        assert store.open_windows({TP: None}) == {TP: 0}

    def test_a_measure_that_the_table_lacks_is_an_error(self, opened: Open) -> None:
        """The error names the table, the column, what it should be, and the way out."""
        opened(flights_plan(measures=["flights"]))
        with pytest.raises(ConfigError, match=r"per_origin_partials has no column fare_sum__sum(.|\n)*sinks.tables"):
            opened(flights_plan(measures=["flights", "fare_sum"], groups=["per_origin"]))

    def test_a_column_too_many_is_an_error(self, opened: Open) -> None:
        """A measure that was taken out of the pipeline file is named."""
        opened(flights_plan(measures=["flights", "tail_min"]))
        with pytest.raises(ConfigError, match=r"does not fill\n  found:    'tail_min__min TEXT'"):
            opened(flights_plan(measures=["flights"]))

    def everything(self) -> list[list[tuple[Any, ...]]]:
        """All that is in the tables."""
        tables = [
            "tidegate_partitions",
            "tidegate_answers",
            "tidegate_late_windows",
            *(f"{name}_partials" for name in GROUPS),
        ]
        existing = {name for (name,) in self.query(self.tables_query())}
        return [sorted(self.query(f"SELECT * FROM {name}"), key=repr) for name in tables if name in existing]

    @abstractmethod
    def tables_query(self) -> str: ...


class TestSqlite(StoreSuite):
    """SQLite in a file."""

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "store.db"

    @pytest.fixture
    def unprepared(self) -> Iterator[Open]:
        stores: list[Store] = []

        def open_(plan: Plan, tables: dict[str, str] | None = None) -> Store:
            sink = SqliteSink(type="sqlite", path=str(self.path), tables=tables or {})
            stores.append(open_store(plan, sink, ManualClock()))
            return stores[-1]

        yield open_
        for store in stores:
            store.close()

    @pytest.fixture
    def opened(self, unprepared: Open) -> Open:
        return _prepared(unprepared)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        from tidegate.store.sqlite import connect_file

        engine = connect_file(self.path, timeout=5_000)
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.exec_driver_sql(sql)]
        finally:
            engine.dispose()

    def tables_query(self) -> str:
        return "SELECT name FROM sqlite_master WHERE type = 'table'"

    def value(self, stored: Any, type_: pa.DataType) -> Any:
        if stored is None:
            return None
        if type_ == pa.timestamp("ms"):
            return datetime.fromisoformat(stored)
        if pa.types.is_timestamp(type_):
            return datetime.fromtimestamp(stored // 1_000_000, UTC).replace(microsecond=stored % 1_000_000, tzinfo=None)
        if pa.types.is_decimal(type_):
            return Decimal(stored)
        if pa.types.is_date(type_):
            return date.fromisoformat(stored)
        return bool(stored) if pa.types.is_boolean(type_) else stored

    def refused(self) -> tuple[Flight, ...]:
        return (
            Flight(100, origin="x0", miles=math.nan),
            Flight(101, origin="x1", miles=-math.inf),
            Flight(102, origin="x2", miles=math.inf),
        )


@pytest.mark.postgres
@pytest.mark.slow  # each test has a fresh database
class TestPostgres(StoreSuite):
    """PostgreSQL, the real one."""

    @pytest.fixture(autouse=True)
    def database(self, postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two rows are many here, so that the way of new rows is taken as well as the other."""
        self.url = postgres.url
        monkeypatch.setattr(postgres_module, "_MANY_NEW", 2)

    @pytest.fixture
    def unprepared(self) -> Iterator[Open]:
        stores: list[Store] = []

        def open_(plan: Plan, tables: dict[str, str] | None = None) -> Store:
            sink = PostgresSink.model_validate({"type": "postgres", "url": self.url, "tables": tables or {}})
            stores.append(open_store(plan, sink, ManualClock()))
            return stores[-1]

        yield open_
        for store in stores:
            store.close()

    @pytest.fixture
    def opened(self, unprepared: Open) -> Open:
        return _prepared(unprepared)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, options="-c timezone=UTC") as connection:
            return connection.execute(sql.encode()).fetchall()

    def tables_query(self) -> str:
        return "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"

    def value(self, stored: Any, type_: pa.DataType) -> Any:
        if isinstance(stored, datetime):
            return stored.astimezone(UTC).replace(tzinfo=None)
        return stored

    def refused(self) -> tuple[Flight, ...]:
        """A NUL in text, a group too long for the index, a window before PostgreSQL's calendar."""
        long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))
        return (Flight(100, origin="x0", tail="a\0b"), Flight(101, origin=long), Flight(102, time=-300_000_000_000_000))


def _prepared(unprepared: Open) -> Open:
    def open_(plan: Plan, tables: dict[str, str] | None = None) -> Store:
        store = unprepared(plan, tables)
        store.prepare()
        return store

    return open_


def _at_once(calls: list[Callable[[], None]]) -> list[BaseException | None]:
    """Run the calls in threads that start together; what each raised."""
    start = threading.Barrier(len(calls))
    outcomes: list[BaseException | None] = [None] * len(calls)

    def run(index: int) -> None:
        start.wait()
        try:
            calls[index]()
        except BaseException as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _with_sum(table: pa.Table, total: int) -> pa.Table:
    index = table.schema.get_field_index("delay_sum__sum")
    return table.set_column(index, table.schema.field(index), pa.array([Decimal(total)], pa.decimal128(38, 0)))


def _rows(table: pa.Table, plan: AggregationPlan) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By window and group; doubles rounded, sketches left out (two that hold the same need not have the same bytes)."""
    keys = ["window_start", "window_end", *(column.name for column in plan.group)]
    rows = table.drop_columns([name for name in ("lane", "revision", "tails__sketch") if name in table.column_names])
    return {
        tuple(row.pop(name) for name in keys): {
            name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()
        }
        for row in rows.to_pylist()
    }
