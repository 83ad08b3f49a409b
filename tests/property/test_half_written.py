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
from tests.property.half_written import FAULTS, Fault, World, asking_plan, check, run
from tests.reference import Record
from tests.unit.worker.pieces import record

HANDLERS: list[dict[str, Any] | None] = [
    {"call": "per_record"},
    {"call": "per_record_async", "concurrency": 3},
    {"call": "per_batch", "mode": "batch"},
]
WITH_INFINITE = (*fickle.USUAL, "infinite")  # SQLite refuses it: the sink has a say too


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with patch.multiple(worker.partition, _OUTAGE_WAIT=(0.0, 0.0), _FENCE_WAIT=0.0):
        yield


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Records in and out of order, some of them replays, duplicates, or what no number can hold."""
    made = []
    for offset, seen in enumerate(draw(st.lists(st.integers(0, 40_000), min_size=1, max_size=14))):
        fields = {"id": draw(st.sampled_from([None, None, "x", "y"])), "ratio": draw(st.sampled_from([0.5, 1e308, 2]))}
        made.append(record(offset, seen, draw(st.sampled_from("ab")), replay=draw(st.integers(0, 5)) == 0, **fields))
    return made


@pytest.mark.slow
@settings(max_examples=40)
@given(
    handler=st.sampled_from(HANDLERS),
    log=logs(),
    sizes=st.lists(st.integers(1, 6), max_size=30),
    script=st.lists(st.sampled_from(FAULTS), max_size=12),
    seed=st.integers(0, 2**16),
)
def test_whatever_fails_between_the_writes_state_and_database_agree(
    handler: dict[str, Any], log: list[Record], sizes: list[int], script: list[Fault], seed: int
) -> None:
    """A handler that answers otherwise at each call, a database that refuses some of it, outages and kills before and after
    each write, batches cut otherwise at each start: ledger, windows and dead letters are the same on both sides, each dead
    letter is there once, and nobody is asked again for what the database has."""
    fickle.start(seed, WITH_INFINITE)
    with tempfile.TemporaryDirectory() as directory:
        world = World(asking_plan(Path(directory) / "results.db", handler), Path(directory), list(script))
        worker = run(world, log, sizes)
        check(world, worker, log)
        assert worker.db is not None
        worker.db.close()
        world.close()
