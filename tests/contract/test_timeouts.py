"""Windows that leave the store for good: which, what of them is given up, and that nothing brings them back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from batch.backfill.ranges import KafkaRange
from batch.backfill.recompute import RecomputeBackfill
from tests.contract.late_scene import LateScene, Told
from tests.contract.store_records import DELAY, SIZE, START, Flight, batch_of, deltas, flights_plan
from tests.contract.test_late_backfill import FEW, RECORDS, log_of
from tidegate.clock import ManualClock
from tidegate.config.sinks import PostgresSink, SqliteSink
from tidegate.errors import ConfigError, StoreFenced
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.store import open_store
from tidegate.store.base import Amendment, Store
from tidegate.store.late import LateCounts, LateWindow
from tidegate.store.raw import fetch
from tidegate.store.shadow import Range
from tidegate.store.sql import SqlStore

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

A, B = TopicPartition("flights", 0), TopicPartition("flights", 1)
PLAN = flights_plan(measures=["flights", "tails"])
TIMEOUT = 10 * SIZE
LATE = LateWindow("per_origin", START, START + SIZE)


class Kept:
    """A store with two source partitions; `again()` opens it as another process would."""

    def __init__(self, url: str) -> None:
        sink = {"type": "postgres", "url": url} if "://" in url else {"type": "sqlite", "path": url}
        kind = PostgresSink if "://" in url else SqliteSink
        self.sink, self.stores = kind.model_validate(sink), list[Store]()
        self.store = self.again()
        self.store.prepare()
        self.states = {A: PartitionState(), B: PartitionState()}
        self.claim()

    def again(self) -> Store:
        self.stores.append(open_store(PLAN, self.sink, ManualClock()))
        return self.stores[-1]

    def claim(self, store: Store | None = None) -> None:
        """All partitions, as whoever writes next."""
        self.store = store or self.store
        self.epochs = {tp: row.epoch for tp, row in self.store.claim([A, B], "run").items()}

    def write(self, tp: TopicPartition, *records: Flight, late: list[tuple[str, int, int]] | None = None) -> None:
        before, epoch = self.states[tp], self.epochs[tp]
        batch = batch_of(PLAN, tp, records, before=before, epoch=epoch, late=late or [])
        self.store.write(batch)
        self.states[tp] = batch.state

    def starts(self, aggregation: str = "per_origin") -> list[int]:
        """Of the windows that are there; in windows from START."""
        tables = [table for tp in (A, B) for table in self.store.windows(tp, aggregation, open_after=None)]
        found = {(start - START) // SIZE for table in tables for start in table["window_start"].to_pylist()}
        return sorted(found)

    def shown(self, aggregation: str = "per_origin") -> int:
        """Results that people see."""
        assert isinstance(self.store, SqlStore)
        with self.store._transaction(reads=True) as connection:
            return int(fetch(connection, f"SELECT count(*) FROM {aggregation}")[0][0])

    def counts(self) -> Mapping[LateWindow, LateCounts]:
        (account, *_) = [account for account in self.store.late_accounts() if account.tp == A]
        return account.windows


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """Both databases."""
    url = str(tmp_path / "store.db") if request.param == "sqlite" else request.getfixturevalue("postgres").url
    made = Kept(url)
    yield made
    for store in made.stores:
        store.close()


def passed(windows: int) -> int:
    """An event time by which the watermark has passed the end of so many windows by TIMEOUT."""
    return START + windows * SIZE + TIMEOUT + DELAY


def test_what_ended_too_long_before_the_watermark_goes(kept: Kept) -> None:
    """The watermark is the least of the partitions'; to the millisecond; in all aggregations, with what they miss."""
    kept.write(
        A, Flight(0), Flight(1, time=START + SIZE), Flight(2, time=passed(2) + SIZE), late=[("per_origin", START, 5)]
    )
    assert kept.store.time_out(kept.epochs, TIMEOUT) is None  # the other has seen nothing
    kept.write(B, Flight(0), Flight(1, time=passed(1) - 1))
    assert kept.store.time_out(kept.epochs, TIMEOUT) is not None
    assert kept.starts()[:2] == [0, 1]
    kept.write(B, Flight(2, time=passed(1)))
    done = kept.store.time_out(kept.epochs, TIMEOUT)
    assert done is not None
    assert (done.upto, done.late) == (START + SIZE, 5)
    assert done.windows == {"per_origin": 1, "per_origin_and_day": 1, "overall": 1}
    for name in done.windows:
        assert (kept.starts(name), kept.shown(name)) == ([1, 11, 13], 3)
    assert kept.counts() == {LATE: LateCounts(expired=5)}
    assert kept.store.time_out(kept.epochs, TIMEOUT) is None


def test_an_idle_partition_keeps_no_window(kept: Kept) -> None:
    """While all are idle nobody knows which time it is, and none goes."""
    kept.write(A, Flight(0), Flight(1, time=passed(1)))
    kept.write(B, Flight(0))
    kept.store.set_idle([B], True)
    done = kept.store.time_out(kept.epochs, TIMEOUT)
    assert done is not None
    assert done.windows["overall"] == 1
    kept.write(A, Flight(2, time=passed(2)))
    kept.write(B, Flight(1, time=passed(3)))
    kept.store.set_idle([A, B], True)
    assert kept.store.time_out(kept.epochs, TIMEOUT) is None


def test_whoever_has_lost_a_partition_deletes_nothing(kept: Kept) -> None:
    """Nor does whoever has not all of them."""
    kept.write(A, Flight(0), Flight(1, time=passed(3)))
    kept.write(B, Flight(0, time=passed(3)))
    assert kept.store.time_out({A: kept.epochs[A]}, TIMEOUT) is None
    kept.again().claim([B], "worker")
    with pytest.raises(StoreFenced, match="flights-1: worker has the partition"):
        kept.store.time_out(kept.epochs, TIMEOUT)
    assert kept.starts()[0] == 0


@pytest.mark.parametrize("again", [False, True], ids=["the same writer", "the next one"])
def test_what_comes_for_a_window_that_has_gone(kept: Kept, again: bool) -> None:
    """From a partition that was idle and far behind: it is counted as expired, as are late records; the rest of the batch is
    added."""
    kept.write(A, Flight(0), Flight(1, time=passed(1)))
    kept.store.set_idle([B], True)
    assert kept.store.time_out(kept.epochs, TIMEOUT) is not None
    if again:
        kept.claim(kept.again())
    kept.write(A, Flight(2), Flight(3), Flight(4, time=START + SIZE), late=[("per_origin", START, 3)])
    assert kept.starts() == kept.starts("overall") == [1, 11]
    counts = kept.counts()
    assert counts.pop(LATE) == LateCounts(expired=3 + 2)  # type: ignore[attr-defined]  # a dict of the test's own
    assert [(window.aggregation, n) for window, n in counts.items()] == [
        ("overall", LateCounts(expired=2)), ("per_origin_and_day", LateCounts(expired=2)),
    ]  # fmt: skip


def test_an_amendment_brings_nothing_back(kept: Kept) -> None:
    """A backfill that looked before the windows went: they stay away, the others get their records."""
    kept.write(
        A, Flight(0), Flight(1, time=passed(1)), late=[("per_origin", START, 1), ("per_origin", START + SIZE, 1)]
    )
    kept.write(B, Flight(0, time=passed(1)))
    kept.store.time_out(kept.epochs, TIMEOUT)
    still = LateWindow("per_origin", START + SIZE, START + 2 * SIZE)
    given = deltas(PLAN, [Flight(2, lane="late"), Flight(3, time=START + SIZE, lane="late")])["per_origin"]
    moved = dict.fromkeys((LATE, still), LateCounts(missing=-1, amended=1))
    kept.again().amend(Amendment(A, "backfill", -1, 1, {"per_origin": given}, moved))
    assert kept.starts() == [1, 11]
    assert kept.counts() == {LATE: LateCounts(expired=1), still: LateCounts(amended=1)}


@pytest.fixture
def scene(kafka: KafkaTopics, postgres: Database) -> Iterator[LateScene]:
    """Three partitions that were read to their ends, and an empty one; the older half of the windows has gone."""
    made = LateScene(kafka, postgres.url, log_of(RECORDS)[0], aggregations=FEW)
    made.read()
    made.store.set_idle([tp for tp, state in made.states.items() if state.high_water is None], True)
    yield made
    made.close()


def half(scene: LateScene) -> int:
    """Delete the older half; up to which end."""
    epochs = {tp: row.epoch for tp, row in scene.rows_of.items()}
    marks = [state.high_water for state in scene.states.values() if state.high_water is not None]
    starts = [
        row[0] for row in scene.query(f"SELECT extract(epoch FROM min(window_start)) * 1000 FROM {FEW[0]['name']}")
    ]
    done = scene.store.time_out(epochs, (min(marks) - int(starts[0])) // 2)
    assert done is not None
    return done.upto


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
def test_a_backfill_after_windows_have_gone(scene: LateScene) -> None:
    """`--late` amends those that are there as ever; the others stay away, and it says how many records were given up. Nothing is
    missing then."""
    missing = scene.counts()[0]
    upto = half(scene)
    report = scene.backfill().document()
    expired = int(scene.query("SELECT sum(expired) FROM tidegate_late_windows")[0][0])
    assert 0 < expired < missing
    assert scene.counts() == (0, 0, missing - expired)
    assert (report["complete"], report["missingAfter"], report["expired"]) == (True, 0, expired)
    assert [f"{expired} records" in note for note in report["notes"]] == [True]
    truth = log_of(RECORDS)[1]
    for aggregation in FEW:
        name = aggregation["name"]
        wanted = {key: row for key, row in truth.rows(name, late=True).items() if key[1] > upto}
        found = scene.results()[name]
        assert found.keys() == wanted.keys()
        assert [row["n"] for _, row in sorted(found.items(), key=repr)] == [
            row["n"] for _, row in sorted(wanted.items(), key=repr)
        ]


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
def test_windows_that_have_gone_are_not_computed_anew(scene: LateScene) -> None:
    """`--from` before them is refused with the moment from which on it can be; from there on nothing differs. Late records of the
    others are found in the source as well. Tables of an older version, which had no timeouts, are no hindrance."""
    upto = half(scene)
    first = upto - min(aggregation.size for aggregation in scene.plan.aggregations) + 1
    backfill: Callable[[], Any] = lambda: RecomputeBackfill(scene.pipeline, Told())  # noqa: E731 (a new one each time)
    with pytest.raises(ConfigError, match="have left the database for good") as refused:
        backfill().compute(Range(first - 1, upto + 10**9))
    assert refused.value.field == "--from"
    _, _, diffs = backfill().compute(Range(first, upto + 10**9))
    assert {state for diff in diffs for state in diff.windows} == {"same"}
    report = scene.backfill(source=KafkaRange.of(scene.pipeline, "backfill")).document()
    assert (report["complete"], report["missingAfter"]) == (True, 0)
    assert {row["source"] for row in report["partitions"]} == {"source", None}
    with psycopg.connect(scene.url) as connection:
        connection.execute("DROP TABLE tidegate_timeouts")
        connection.execute("ALTER TABLE tidegate_late_windows DROP COLUMN expired")
    _, _, diffs = backfill().compute(Range(first, upto + 10**9))
    assert {state for diff in diffs for state in diff.windows} == {"same"}
