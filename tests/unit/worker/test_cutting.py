"""How a partition cuts what was delivered: by what is applied, by what the database has, by what memory takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.worker.pieces import TP, plan_of, raw, record
from tidegate.stages.batch import PartitionState
from worker.source_partition import SourcePartition


def partition(size: str, hop: str, *, upto: int = -1, store: int = -1) -> SourcePartition:
    window = {"type": "hopping", "size": size, "hop": hop}
    plan = plan_of(aggregations=[{"name": "totals", "window": window, "measures": {"n": "count"}}])
    context: Any = SimpleNamespace(plan=plan, executor=None)
    made = SourcePartition(TP, context)
    made._state = PartitionState(upto)
    claim: Any = SimpleNamespace(worker_upto=store)
    made._claim = claim
    return made


def cuts(made: SourcePartition, count: int) -> list[tuple[int, int]]:
    records, found = raw(*(record(i, i) for i in range(count))), []
    while (part := made._part(records)) is not None:
        found.append((part.first, part.last))
        made._state = PartitionState(part.last)
    return found


def test_a_batch_is_cut_where_the_store_has_a_worker_s_last() -> None:
    """It skips exactly what it has; what the state has applied is left out."""
    assert cuts(partition("10 seconds", "5 seconds", upto=2, store=6), 10) == [(3, 6), (7, 9)]
    assert cuts(partition("10 seconds", "5 seconds", upto=9), 10) == []


def test_a_batch_with_many_windows_is_cut_so_that_its_rows_fit() -> None:
    """Two million rows at most once each record stands in all its windows, whatever the limits of a batch are."""
    made = partition("10000 seconds", "1 second", store=99)
    assert made.context.plan.records_at_once == 200
    assert cuts(made, 450) == [(0, 99), (100, 299), (300, 449)]


@pytest.mark.parametrize(
    ("size", "hop", "most"), [("1 hour", "1 hour", 2_000_000), ("10 s", "3 s", 500_000), ("10000 s", "1 s", 200)]
)
def test_the_most_overlapping_windows_decide(size: str, hop: str, most: int) -> None:
    """The last window of a record counts too when the hop does not divide the size."""
    assert partition(size, hop).context.plan.records_at_once == most
