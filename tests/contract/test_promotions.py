"""Windows that a promotion has replaced reach the sinks beside the store, those that it has taken away, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.contract.publishing import Recorded, Run, published_plan
from tests.contract.store_records import SIZE, START, Flight, batch_of
from tests.contract.test_published import PLAN, A, B, Results, Sinks
from tests.harness import wait_until
from tests.unit.worker.pieces import record
from tidegate.clock import ManualClock
from tidegate.config.sinks import KafkaSink, OutputMode, PostgresSink
from tidegate.errors import StoreFenced
from tidegate.store.postgres import connect_server
from tidegate.store.promotions import Promotions
from tidegate.store.shadow import Range, ShadowStore
from tidegate.store.tables import store_tables

if TYPE_CHECKING:
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ALL = Range(0, 2 * START)
NOTED = b"SELECT count(*) FROM per_origin_promoted"
LIVE = [Flight(1), Flight(2, origin="JFK"), Flight(3, origin=None), Flight(4, time=START + SIZE)]
ANEW = [Flight(1), Flight(1), Flight(2, origin="LGA"), Flight(4, time=START + SIZE)]
"""Other than LIVE in the first window: one more, two that are gone, one that is new."""


@pytest.fixture
def sinks(postgres: Database) -> Iterator[Sinks]:
    """The flights of LIVE, which the sink `kafka` has."""
    made = Sinks(postgres.url, PLAN)
    made.write(A, *LIVE)
    made.give()
    yield made
    made.published.close()
    made.store.close()


def promote(sinks: Sinks, *flights: Flight) -> None:
    """Compute all windows anew, from these flights of the first partition, and put them in place."""
    shadow = ShadowStore(sinks.plan, sinks.sink, ManualClock())
    shadow.begin(ALL, "digest")
    epoch = shadow.claim([A], "backfill")[A].epoch
    shadow.write(batch_of(sinks.plan, A, flights, epoch=epoch))
    shadow.compare(whole=True)
    shadow.promote("digest")
    shadow.promote("digest")
    shadow.close()


def published(sinks: Sinks, sink: str = "kafka", mode: OutputMode = "update") -> Results:
    """All that this sink lacks, in one publication."""
    publication = sinks.next(sink=sink)
    assert publication is not None
    found = sinks.read(publication, mode)
    sinks.published.done(publication)
    sinks.published.forget_promotions()
    assert sinks.next(sink=sink) is None
    return found


def gone(revision: int, offset: int, *, final: bool = False) -> tuple[object, ...]:
    return (None, revision, {"flights-0": offset}, final)


PROMOTED = {
    (START, "EWR"): (2, 2, {"flights-0": 1}, False),
    (START, "LGA"): (1, 2, {"flights-0": 2}, False),
    (START, "JFK"): gone(2, 2),
    (START, None): gone(2, 3),
}


def test_a_sink_is_given_what_was_replaced_and_what_is_gone(sinks: Sinks, postgres: Database) -> None:
    """Without a record that came since: every result of the windows that differed, those that are gone with no records, the
    next revision and the place where they were. Once: then nothing is kept of it."""
    promote(sinks, *ANEW)
    publication = sinks.next()
    assert publication is not None
    table = sinks.published.results(publication, PLAN.aggregations[0], "update", None)
    assert {row["origin"]: row["records"] for row in table.to_pylist()} == {"EWR": 2, "LGA": 1, "JFK": 0, None: 0}
    assert published(sinks) == PROMOTED
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute(NOTED).fetchall() == [(0,)]
    sinks.write(A, Flight(5, origin="JFK"))
    assert published(sinks) == {(START, "JFK"): (1, 1, {"flights-0": 5}, False)}


def test_a_publication_that_was_under_way_is_not_the_last(sinks: Sinks) -> None:
    """Its results were read before the promotion; whoever killed it there, the next one has what was promoted. A run that knows
    what its micro-batch has touched finds it as well."""
    sinks.write(B, Flight(0, time=START + SIZE))
    publication = sinks.next()
    assert publication is not None
    sinks.read(publication)
    promote(sinks, *ANEW)  # of the second window only the first partition's
    sinks.published.done(publication)
    nothing = sinks.published.results(publication, PLAN.aggregations[0], "append", None)
    other = sinks.again()
    again = sinks.next(other)
    other.close()
    assert again is not None
    found = sinks.read(again, touched=nothing.select(["window_start", "window_end", "origin"]).slice(0, 0))
    assert found == {**PROMOTED, (START + SIZE, "EWR"): (1, 3, {"flights-0": 4}, False)}
    assert sinks.read(again) == found


def test_what_a_run_has_written_too_late_of_a_promotion_is_written_again(sinks: Sinks) -> None:
    """By their offsets its windows are not found; so all results are given again, as final as they are by now."""
    promote(sinks, *ANEW)
    late = sinks.next()
    assert late is not None
    published(sinks)
    sinks.store.set_idle([A, B], True)
    published(sinks)
    with pytest.raises(StoreFenced):
        sinks.published.done(late)
    assert published(sinks) == {
        (START, "EWR"): (2, 2, {"flights-0": 1}, True),
        (START, "LGA"): (1, 2, {"flights-0": 2}, True),
        (START + SIZE, "EWR"): (1, 1, {"flights-0": 4}, True),
    }


def test_what_a_run_brings_back_too_late_is_taken_away_again(sinks: Sinks, postgres: Database) -> None:
    """It was paused before it wrote a result that a promotion has taken away meanwhile, as every sink has been told. What it
    wrote and what is there comes again as well, and then nothing is kept of it."""
    sinks.write(A, Flight(5, origin="JFK"), Flight(6))
    late = sinks.next()
    assert late is not None
    table = sinks.published.results(late, PLAN.aggregations[0], "update", None)
    assert table["origin"].to_pylist() == ["EWR", "JFK"]
    promote(sinks, *ANEW)
    assert sinks.give() == {}  # by another run: the same version, for which nothing is left
    assert published(sinks)[START, "JFK"] == gone(3, 5)
    with pytest.raises(StoreFenced):
        sinks.published.done(late, {"per_origin": table})
    assert published(sinks) == {(START, "EWR"): (2, 3, {"flights-0": 1}, False), (START, "JFK"): gone(3, 5)}
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute(NOTED).fetchall() == [(0,)]


def test_each_sink_has_its_own_and_a_new_one_needs_none(sinks: Sinks, postgres: Database) -> None:
    """Promotions are kept until all that follow have them; two are one publication, and what came back is not gone. A new
    sink gets what there is, and is told of nothing that it never had."""
    sinks.write(B, Flight(0, time=START + SIZE))
    published(sinks, "lake")
    published(sinks)
    promote(sinks, *ANEW)
    published(sinks)
    promote(sinks, *ANEW, Flight(2, origin="JFK"))
    assert published(sinks, "lake").keys() == {*PROMOTED, (START + SIZE, "EWR")}
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute(NOTED).fetchall() == [(3,)]
    assert published(sinks, "new").keys() == {(START, o) for o in ("EWR", "LGA", "JFK")} | {(START + SIZE, "EWR")}
    assert published(sinks)[START, "JFK"][0] == 1


def test_what_is_noted_is_bounded_while_no_run_publishes(sinks: Sinks, postgres: Database) -> None:
    """However often the same windows are promoted: one row for each result that they have had. A sink that comes back is told
    of what is gone, also by an earlier promotion."""
    for _ in range(3):
        promote(sinks, *ANEW)
        promote(sinks, *LIVE)
    promote(sinks, Flight(1), Flight(4, time=START + SIZE))
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute(NOTED).fetchall() == [(4,)]
    assert published(sinks) == {
        (START, "EWR"): (1, 8, {"flights-0": 1}, False),
        (START, "JFK"): gone(8, 2),
        (START, "LGA"): gone(7, 2),
        (START, None): gone(8, 3),
    }


def test_output_modes(sinks: Sinks) -> None:
    """`append` is told of windows that have closed, and of the others not even that results are gone; `complete` of all there
    are, and of what is gone."""
    promote(sinks, *ANEW)
    publication = sinks.next()
    assert publication is not None
    assert sinks.read(publication, "append") == {}
    assert sinks.read(publication, "complete") == {
        **PROMOTED,
        (START + SIZE, "EWR"): (1, 1, {"flights-0": 4}, False),
    }
    sinks.published.done(publication)
    sinks.store.set_idle([A, B], True)
    promote(sinks, Flight(2, origin="LGA"), Flight(4, time=START + SIZE))
    published(sinks)
    promote(sinks, Flight(1), Flight(4, time=START + SIZE))
    assert published(sinks, mode="append") == {
        (START, "EWR"): (1, 4, {"flights-0": 1}, True),
        (START, "LGA"): gone(4, 2, final=True),
    }


def test_a_sink_that_is_new_at_that_very_moment(postgres: Database) -> None:
    """Its first publication is being planned: the promotion waits for that, and is noted, since the results may have been
    read before it."""
    sinks = Sinks(postgres.url, PLAN)
    sinks.write(A, *LIVE)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = '{}'"
    planning = threading.Thread(target=sinks.next)
    promotion = threading.Thread(target=promote, args=(sinks, *ANEW))
    with psycopg.connect(postgres.url) as other, psycopg.connect(postgres.url, autocommit=True) as looking:

        def wait_for(kind: str) -> None:
            wait_until(
                lambda: looking.execute(waiting.format(kind).encode()).fetchall() == [(1,)], 30, f"waits: {kind}"
            )

        other.execute(
            "INSERT INTO tidegate_published (pipeline, sink, topic, partition, upto, amended, version) "
            "VALUES ('flights', 'kafka', 'flights', 0, -1, -1, 1)"
        )
        planning.start()
        wait_for("transactionid")
        promotion.start()
        wait_for("advisory")
        other.rollback()
        planning.join()
        promotion.join()
        assert looking.execute(NOTED).fetchall() == [(4,)]
    sinks.published.close()
    sinks.store.close()


def test_pipelines_beside_it_publish_meanwhile(sinks: Sinks, postgres: Database) -> None:
    """A promotion may take minutes; it holds up whoever plans for a sink of the same pipeline."""
    other = Promotions(store_tables(PLAN, sinks.sink.tables, sinks.sink.schema_), "another")
    engine = connect_server(postgres.url, timeout=10_000)
    with engine.connect() as promoting:
        assert other.begin(promoting, wanted=True) == 1
        sinks.write(A, Flight(5))
        assert sinks.give().keys() == {(START, "EWR")}
    engine.dispose()


def test_tables_of_an_older_version(sinks: Sinks, postgres: Database) -> None:
    """They know no promotions: they get what they lack, and a plan that was written down is gone on with."""
    sinks.write(A, Flight(5))
    first = sinks.next()
    assert first is not None
    with psycopg.connect(postgres.url) as connection:
        connection.execute("ALTER TABLE tidegate_published DROP COLUMN promoted, DROP COLUMN next_promoted")
        connection.execute("DROP TABLE per_origin_promoted")
    promote(sinks, *ANEW, Flight(5))
    assert sinks.next() == first
    sinks.published.done(first)
    assert published(sinks)[START, "EWR"] == (3, 3, {"flights-0": 5}, False)


def test_what_workers_have_given_to_a_sink(postgres: Database) -> None:
    """No run has ever published, but the file has a sink that workers write to: the first publication tells it of what is gone,
    and a sink of which workers know nothing is not told."""
    document = {"type": "kafka"}
    sinks = [PostgresSink.model_validate({"type": "postgres", "url": postgres.url}), KafkaSink.model_validate(document)]
    followed = Sinks(postgres.url, replace(PLAN, pipeline=PLAN.pipeline.model_copy(update={"sinks": tuple(sinks)})))
    followed.write(A, *LIVE)
    promote(followed, *ANEW)
    there = {(START, "EWR"), (START, "LGA"), (START + SIZE, "EWR")}
    for sink, shared, keys in (("lake", False, there), ("kafka", True, there | PROMOTED.keys())):
        publication = followed.published.plan(sink, followed.epochs, shared=shared)
        assert publication is not None
        assert followed.read(publication).keys() == keys
        followed.published.done(publication)
    assert followed.published.plan("kafka", followed.epochs, shared=True) is None
    followed.published.close()
    followed.store.close()


def test_without_a_sink_that_follows_nothing_is_noted(postgres: Database) -> None:
    """Nor are there tables for it; the first sink that comes gets all that there is."""
    sinks = Sinks(postgres.url, PLAN, prepared=False)
    sinks.write(A, *LIVE)
    promote(sinks, *ANEW)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT to_regclass('per_origin_promoted')").fetchall() == [(None,)]
    sinks.published.prepare()
    assert published(sinks).keys() == {(START, "EWR"), (START, "LGA"), (START + SIZE, "EWR")}
    sinks.published.close()
    sinks.store.close()


def test_what_a_promotion_has_changed_is_published_without_a_record(postgres: Database) -> None:
    """After a micro-batch without records, or at the next start; once, to every sink, and then nothing is kept of it."""
    run, targets = Run(published_plan(postgres.url)), [Recorded("first"), Recorded("second")]
    publisher = run.publisher(*map(run.follower, targets))
    run.commit(p0=[record(0, 1000, "a", colour="red")])
    publisher.catch_up()
    gone = "'gone', '{\"flights-1\": 7}', 4"
    keys = "SELECT 1, window_start, window_end"
    noted = f"{keys}, {gone} FROM totals_partials UNION ALL {keys}, k, '{{}}', 1"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"INSERT INTO totals_promoted {noted} FROM totals_partials".encode())
        publisher.follow({})
        assert connection.execute("SELECT count(*) FROM totals_promoted").fetchall() == [(0,)]
    publisher.catch_up()
    for target in targets:
        (_, first, _, _), _, (name, second, table, _) = target.given
        assert (name, first, second) == ("totals", 1, 2)
        rows = {row["k"]: (row["records"], row["n"], row["revision"], row["upto"]) for row in table.to_pylist()}
        assert rows == {"a": (1, 1, 1, '{"flights-0": 0}'), "gone": (0, None, 5, '{"flights-1": 7}')}
    run.close()
