"""The hold on partitions in the store, over a real one (SQLite)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch import written
from batch.claims import Claims
from tests.contract.store_records import Flight, batch_of, flights_plan
from tidegate.config.errorhandling import ErrorHandling
from tidegate.config.sinks import SqliteSink
from tidegate.config.stages import Dedupe
from tidegate.errors import ConfigError, StoreFenced, StoreUnavailable, TopicRecreated
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import PartitionState
from tidegate.store import open_store
from tidegate.store.base import Store, StoreBatch
from tidegate.store.seen import SEEN_SCHEMA

A, B = TopicPartition("t", 0), TopicPartition("t", 1)
STATE = PartitionState(9, ledger=Ledger(10, 10))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(flights_plan(), SqliteSink(type="sqlite", path=str(tmp_path / "x.db")))
    opened.prepare()
    yield opened
    opened.close()


def claims(store: Store, owner: str = "spark:1", *, dedupes: bool = False, topic_id: str = "") -> Claims:
    retry = {"retry": {"maxAttempts": 3, "initialDelayMs": 1, "maxDelayMs": 1}}
    dedupe = Dedupe(key="flight", horizon=1) if dedupes else None
    plan = flights_plan()
    plan = replace(plan, pipeline=plan.pipeline.model_copy(update={"dedupe": dedupe}))
    guard = Guard("store", ErrorHandling.model_validate(retry))
    return Claims(plan, store, guard, owner, {"t": topic_id})


def test_a_topic_that_was_made_anew_is_not_gone_on_with(store: Store) -> None:
    """The id of the topic is written with the offsets; under another one they would skip what the new topic has."""
    mine = claims(store, topic_id="first")
    mine.claim([A])
    mine.write([mine.batch(A, replace(mine.states[A], upto=9, ledger=Ledger(10, 10)))])
    assert claims(store, topic_id="first").claim([A]) == []
    with pytest.raises(TopicRecreated, match="'t' was deleted and made anew: the database goes on after offset 9"):
        claims(store, topic_id="second").claim([A])


def test_claims_move_with_what_is_written(store: Store) -> None:
    """New partitions are told; the next batch starts from what the last has written."""
    mine = claims(store)
    assert mine.claim([A]) == [A]
    assert mine.claim([A, B]) == [B]
    mine.write([mine.batch(A, STATE), mine.batch(B, STATE)])
    mine.write([mine.batch(A, replace(STATE, upto=19))])
    assert {tp: state.upto for tp, state in mine.states.items()} == {A: 19, B: 9}
    assert claims(store).claim([A, B]) == []


def test_another_owner_fences_all_of_a_micro_batch(store: Store) -> None:
    """When one partition has been taken, none of the micro-batch is written, and a renewal says by whom."""
    mine = claims(store)
    mine.claim([A, B])
    store.claim([B], "worker:7")
    with pytest.raises(StoreFenced, match="worker:7"):
        mine.write([mine.batch(A, STATE), mine.batch(B, STATE)])
    assert [row.state.upto for row in store.partitions()] == [-1, -1]
    with pytest.raises(StoreFenced, match="worker:7 has taken the partition"):
        mine.renew()


def test_a_write_whose_answer_was_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried again, it finds its own rows moved on: that is no fence."""
    mine, write, tries = claims(store), store.write, 0

    def without_answer(*batches: StoreBatch) -> None:
        nonlocal tries
        tries += 1
        write(*batches)
        raise StoreUnavailable("the connection went away")

    mine.claim([A])
    monkeypatch.setattr(store, "write", without_answer)
    mine.write([mine.batch(A, STATE)])
    assert tries == 2
    assert mine.states[A] == STATE


def test_a_renewal_learns_what_was_written(store: Store) -> None:
    """After an outage the states are those of the database."""
    mine = claims(store)
    mine.claim([A])
    store.write(mine.batch(A, STATE))
    assert mine.states[A].upto == -1
    mine.renew()
    assert mine.states[A] == STATE


def test_what_is_written_is_not_new_any_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a window that has begun only the results that the run has not added to are; after a renewal nothing in such a window."""
    monkeypatch.setattr(written, "_WORTH", 1)
    plan = flights_plan()
    mine, first = claims(store), [Flight(0, origin="EWR")]
    mine.claim([A])
    batch = batch_of(plan, A, first)

    def perhaps_there(origin: str) -> list[bool]:
        deltas = batch_of(plan, A, [Flight(1, origin=origin)], before=batch.state).deltas
        one = mine.batch(A, batch.state, deltas=deltas)
        assert one.perhaps_there.keys() == deltas.keys()
        return list(one.perhaps_there["per_origin"].to_pylist())

    assert perhaps_there("EWR") == [False]
    mine.write([mine.batch(A, batch.state, deltas=batch.deltas)])
    assert (perhaps_there("EWR"), perhaps_there("JFK")) == ([True], [False])
    mine.renew()
    assert perhaps_there("JFK") == [True]


@pytest.mark.parametrize("seen", [None, pa.table([[b"k"], [1]], schema=SEEN_SCHEMA)])
def test_dedupe_needs_a_memory_that_is_whole(store: Store, seen: Any) -> None:
    """Where records were read without their keys being kept, a run that dedupes refuses to go on; else it goes on."""
    row = store.claim([A], "somebody")[A]
    store.write(StoreBatch(A, row.epoch, -1, STATE, seen=seen))
    if seen is None:
        with pytest.raises(ConfigError, match="dedupe: t-0 was read up to offset 9, and the database has not all keys"):
            claims(store, dedupes=True).claim([A])
    else:
        claims(store, dedupes=True).claim([A])
    claims(store, dedupes=False).claim([A])
