"""What only the PostgreSQL store can be asked: outages, stopped writers, locks, rights, other people's tables."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from tests.contract.postgres_stores import PLAN, TP, Open, as_user, kill_others, sql
from tests.contract.store_records import DELAY, SIZE, START, Flight, batch_of, flights_plan, window_of
from tidegate.config.sinks import PostgresSink
from tidegate.errors import ConfigError, StoreFenced, StoreUnavailable
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import Plan
from tidegate.store import open_store
from tidegate.store import postgres as postgres_module
from tidegate.store.base import PartitionRow, StoreBatch

if TYPE_CHECKING:
    from tests.providers.postgres import Database
    from tidegate.local.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.postgres, pytest.mark.slow]  # each has a fresh database

ROOT = Path(__file__).parents[2]
_DIES_AT_COMMIT = """
import os, sys, psycopg
from tests.contract.test_store_postgres import *
store = open_store(PLAN, PostgresSink.model_validate({"type": "postgres", "url": sys.argv[1]}))
store.claim([TP], "w1")
psycopg.Connection.commit = lambda self: os._exit(9)
store.write(batch_of(PLAN, TP, [Flight(0)], late=[("overall", START, 1)]))
"""


def test_a_server_that_is_not_there_is_an_outage(postgres: Database) -> None:
    """No address, no answer: StoreUnavailable that names the sink and keeps the password to itself."""
    sink = PostgresSink.model_validate({"type": "postgres", "url": "postgresql://me:secret@127.0.0.1:1/db"})
    with pytest.raises(StoreUnavailable, match="sink 'postgres'") as caught:
        open_store(PLAN, sink).prepare()
    assert "secret" not in str(caught.value)


def test_a_connection_that_died_in_the_pool_is_replaced(opened: Open, postgres: Database) -> None:
    """After a restart of the server the next batch goes in without an error."""
    store = opened()
    store.claim([TP], "w1")
    kill_others(postgres)
    store.write(batch_of(PLAN, TP, [Flight(0)]))
    assert store.partitions()[0].state.upto == 0


def test_a_connection_that_dies_in_a_batch_is_an_outage(opened: Open, postgres: Database) -> None:
    """Killed while it waits for a lock: StoreUnavailable, nothing written, and the next try succeeds."""
    store = opened()
    store.claim([TP], "w1")
    batch = batch_of(PLAN, TP, [Flight(0)])
    raised: list[BaseException] = []

    def write() -> None:
        try:
            store.write(batch)
        except StoreUnavailable as error:
            raised.append(error)

    with psycopg.connect(postgres.url) as blocker:
        blocker.execute("LOCK TABLE overall_partials")
        thread = threading.Thread(target=write)
        thread.start()
        _until(lambda: bool(sql(postgres, "SELECT 1 FROM pg_locks WHERE NOT granted")))
        kill_others(postgres)
        thread.join()
    assert len(raised) == 1
    assert sql(postgres, "SELECT * FROM overall") == []
    store.write(batch)


def test_a_statement_that_takes_too_long_is_an_outage(opened: Open, postgres: Database) -> None:
    """The sink's timeout holds for a write that waits for somebody else's lock."""
    store = opened(timeout=500)
    store.claim([TP], "w1")
    with psycopg.connect(postgres.url) as blocker:
        blocker.execute("LOCK TABLE overall_partials")
        with pytest.raises(StoreUnavailable, match="timeout"):
            store.write(batch_of(PLAN, TP, [Flight(0)]))


def test_a_writer_that_stopped_in_mid_batch_does_not_hold_its_partition(opened: Open, postgres: Database) -> None:
    """The server ends its transaction within the timeout; the new owner's claim goes through, the old one is fenced."""
    zombie, owner = opened(timeout=2_000), opened(timeout=2_000)
    zombie.claim([TP], "w1")
    stopped = zombie._engine.connect()  # type: ignore[attr-defined]  # the store of this file is SQL's
    stopped.exec_driver_sql("UPDATE tidegate_partitions SET upto = 99")
    began = time.monotonic()
    assert owner.claim([TP], "w2")[TP].state.upto == -1
    assert time.monotonic() - began < 2
    stopped.invalidate()
    with pytest.raises(StoreFenced):
        zombie.write(batch_of(PLAN, TP, [Flight(0)]))


def test_a_stopped_server_is_an_outage_until_it_is_back(own_postgres: EmbeddedPostgres) -> None:
    """What was committed before the stop is there after it, and the same store goes on."""
    sink = PostgresSink.model_validate({"type": "postgres", "url": own_postgres.url})
    store = open_store(PLAN, sink)
    store.prepare()
    store.claim([TP], "w1")
    first = batch_of(PLAN, TP, [Flight(0)])
    store.write(first)
    second = batch_of(PLAN, TP, [Flight(1)], before=first.state)
    own_postgres.stop()
    with pytest.raises(StoreUnavailable):
        store.write(second)
    own_postgres.start()
    store.write(second)
    assert [row.state for row in store.partitions()] == [second.state]
    store.close()


def test_a_table_that_was_dropped_is_named(opened: Open, postgres: Database) -> None:
    """Not an outage, which would be waited out for ever: the error says what is gone and that a start creates it."""
    store = opened()
    store.claim([TP], "w1")
    sql(postgres, "DROP TABLE overall_partials CASCADE")
    with pytest.raises(ConfigError, match=r"overall_partials(.|\n)*missing tables are created"):
        store.write(batch_of(PLAN, TP, [Flight(0)]))


def test_a_crash_before_the_commit_leaves_nothing(opened: Open, postgres: Database) -> None:
    """When the process dies after the last statement, neither results nor partition row have moved."""
    store = opened()
    died = subprocess.run([sys.executable, "-c", _DIES_AT_COMMIT, postgres.url], cwd=ROOT, check=False)
    assert died.returncode == 9
    assert [row.state.upto for row in store.partitions()] == [-1]
    assert sql(postgres, "SELECT 1 FROM overall_partials UNION ALL SELECT 1 FROM tidegate_late_windows") == []


def test_workers_that_start_together_create_the_tables_once(postgres: Database) -> None:
    """Four at once: none of them stumbles over another's tables."""
    sink = PostgresSink.model_validate({"type": "postgres", "url": postgres.url, "schema": "gate %s"})
    errors: list[BaseException] = []

    def prepare() -> None:
        store = open_store(flights_plan(), sink)
        try:
            store.prepare()
        except BaseException as error:
            errors.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sql(postgres, "SELECT count(*) FROM pg_views WHERE schemaname = 'gate %s'") == [(3,)]


def test_a_table_of_somebody_else_is_left_alone(opened: Open, postgres: Database) -> None:
    """A table where the view should be, or another pipeline's view, is an error that says how to go round it."""
    sql(postgres, "CREATE TABLE overall (id int)")
    with pytest.raises(ConfigError, match=r"public.overall exists(.|\n)*sinks.tables"):
        opened()
    opened(tables={"overall": "mine"})
    other = flights_plan("other", measures=["flights"], groups=["overall"])
    with pytest.raises(ConfigError, match=r"'tidegate pipeline flights"):
        opened(other, tables={"overall": "mine"})


def test_another_type_is_named(opened: Open, postgres: Database) -> None:
    """A column of another type is an error that shows both."""
    opened()
    sql(postgres, "ALTER TABLE tidegate_late_windows ALTER missing TYPE numeric(5, 0)")
    with pytest.raises(ConfigError, match=r"column missing(.|\n)*NUMERIC\(5, 0\)(.|\n)*BIGINT"):
        opened()


def test_a_table_without_its_key_is_named(opened: Open, postgres: Database) -> None:
    """Without the unique key every batch would fail; the start says so."""
    opened()
    key_of = "SELECT conname FROM pg_constraint WHERE conrelid = 'overall_partials'::regclass AND contype = 'u'"
    [(key,)] = sql(postgres, key_of)
    sql(postgres, f"ALTER TABLE overall_partials DROP CONSTRAINT {key}")
    with pytest.raises(ConfigError, match="UNIQUE NULLS NOT DISTINCT"):
        opened()


def test_a_user_without_rights_to_create_can_work(opened: Open, postgres: Database, role: str) -> None:
    """Once the tables are there, a worker needs to read and write them, no more."""
    opened()
    sql(postgres, f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    store = opened(url=as_user(postgres.url, role))
    store.claim([TP], "w1")
    store.write(batch_of(PLAN, TP, [Flight(0)]))
    store.close()


def test_a_writer_that_is_stopped_while_it_sends_rows_is_ended(opened: Open, postgres: Database) -> None:
    """No timeout of the server reaches a session that waits for the rest of a COPY: the partition's next owner ends it, and
    others may start meanwhile."""
    store, other = opened(timeout="2 s"), TopicPartition("flights", 1)
    store.claim([TP, other], "old")

    def stopped() -> None:
        with psycopg.connect(postgres.url, application_name="tidegate") as session:
            session.execute("UPDATE tidegate_partitions SET upto = 7")
            session.execute("CREATE TEMPORARY TABLE half (number bigint)")
            with session.cursor().copy("COPY half FROM STDIN") as copy:
                copy.write(b"1\n")
                store.expect([TP, other], {})
                claimed.update(store.claim([TP], "new"))

    claimed: dict[TopicPartition, PartitionRow] = {}
    with pytest.raises(psycopg.OperationalError):
        stopped()
    assert (claimed[TP].epoch, claimed[TP].owner, claimed[TP].state.upto) == (2, "old", -1)
    assert store.claim([other], "new")[other].epoch == 2


def test_a_new_delay_replaces_the_view(opened: Open, postgres: Database) -> None:
    """`final` follows the pipeline file: a longer delay opens a window again."""
    store = opened()
    store.claim([TP], "w1")
    store.write(batch_of(PLAN, TP, [Flight(0), Flight(1, START + SIZE + DELAY)]))
    finals = "SELECT final FROM overall ORDER BY window_start"
    assert sql(postgres, finals) == [(True,), (False,)]
    event_time = PLAN.pipeline.event_time
    assert event_time is not None
    longer = event_time.model_copy(update={"delay": DELAY + 1})
    opened(Plan(PLAN.pipeline.model_copy(update={"event_time": longer}), PLAN.decoded, PLAN.columns, PLAN.aggregations))
    assert sql(postgres, finals) == [(False,), (False,)]


def test_reading_windows_back_is_done_in_chunks(opened: Open) -> None:
    """60 000 groups come in two tables, none lost."""
    plan = flights_plan(measures=["flights"], groups=["per_origin"])
    store = opened(plan)
    store.claim([TP], "w1")
    store.write(batch_of(plan, TP, [Flight(offset, origin=f"o{offset}") for offset in range(60_000)]))
    chunks = list(store.windows(TP, "per_origin", open_after=0))
    assert [chunk.num_rows for chunk in chunks] == [50_000, 10_000]
    assert len({name for chunk in chunks for name in chunk.column("origin").to_pylist()}) == 60_000


def many(first: int, minutes: int) -> list[Flight]:
    """1 200 records, each of an origin of its own, shared out over windows of a minute from the `first` offset's on."""
    return [Flight(first + n, START + (first // 1_200 + n % minutes) * SIZE, origin=f"o{n}") for n in range(1_200)]


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where rows were copied to, in their order."""
    found: list[str] = []
    copy = postgres_module.copy_in
    monkeypatch.setattr(
        postgres_module, "copy_in", lambda c, place, table: (found.append(place), copy(c, place, table))
    )
    return found


def test_rows_of_windows_that_are_new_are_copied_into_their_place(
    opened: Open, postgres: Database, places: list[str]
) -> None:
    """Nothing can be there to add them to; what falls in a window that has begun is added as ever."""
    plan = flights_plan(measures=["flights", "miles_sum"], groups=["per_origin"])
    store = opened(plan)
    store.claim([TP], "w1")
    first, second = many(0, 2), many(1_200, 1) + many(2_400, 1)
    store.write(batch := batch_of(plan, TP, first))
    store.write(batch_of(plan, TP, second, before=batch.state))
    into = {place.strip('"').split("_")[0]: places.count(place) for place in places}
    assert into == {'public"."per': 2, "tidegate": 1}
    counted = sql(postgres, "SELECT window_start, origin, flights, revision FROM per_origin")
    truth_of = Counter((window_of(flight), flight.origin) for flight in first + second)
    assert {(int(at.timestamp() * 1000), origin): n for at, origin, n, _ in counted} == truth_of
    assert {(n, revision) for *_, n, revision in counted} == {(1, 1), (2, 2)}


def test_rows_of_a_window_that_has_begun_are_copied_too_if_their_keys_are_known_to_be_new(
    opened: Open, postgres: Database, places: list[str]
) -> None:
    """The others are added to what is there."""
    plan = flights_plan(measures=["flights", "miles_sum"], groups=["per_origin"])
    store = opened(plan)
    store.claim([TP], "w1")
    first = [Flight(n, START, origin=f"o{n}") for n in range(600)]
    second = [Flight(600 + n, START, origin=f"o{n}") for n in range(1_800)]
    store.write(batch := batch_of(plan, TP, first))
    places.clear()
    more = batch_of(plan, TP, second, before=batch.state)
    there = pa.array([int(name[1:]) < 600 for name in more.deltas["per_origin"].column("origin").to_pylist()])
    store.write(replace(more, new_after=START - 1, perhaps_there={"per_origin": there}))
    assert [place.strip('"').split("_")[0] for place in places] == ['public"."per', "tidegate"]
    counted = dict(sql(postgres, "SELECT origin, flights FROM per_origin"))
    assert counted == Counter(flight.origin for flight in first + second)


def test_a_row_that_was_to_be_new_and_is_there_is_added_to(opened: Open, postgres: Database) -> None:
    """A high water that a person has set back, say: the batch is written the other way, once."""
    plan = flights_plan(measures=["flights"], groups=["per_origin"])
    store = opened(plan)
    store.claim([TP], "w1")
    store.write(batch_of(plan, TP, many(0, 1)))
    with capture_logs() as logs:
        store.write(replace(batch_of(plan, TP, many(0, 1)), expected_upto=1_199, new_after=START - 1))
    assert [line["event"] for line in logs] == ["store.not_new"]
    assert sql(postgres, "SELECT DISTINCT flights, revision FROM per_origin") == [(2, 2)]


def test_an_empty_batch_moves_the_row(opened: Open) -> None:
    """A batch whose records were all rejected has no deltas, and still counts."""
    store = opened()
    store.claim([TP], "w1")
    store.write(StoreBatch(TP, 1, -1, PartitionState(5)))
    assert store.partitions()[0].state.upto == 5


def _until(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not become true within 10 s")
