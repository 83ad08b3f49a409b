"""What a backfill does about rows that the database goes on to refuse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from batch.backfill.pool import Here
from batch.backfill.recompute import RecomputeBackfill
from batch.backfill.splits import Split
from batch.backfill.stretch import Stretches
from batch.backfill.task import Part, Recomputed
from dlq.late_reading import LateSource
from tests.unit.worker.pieces import TP, plan_of
from tidegate.config.errorhandling import ErrorHandling
from tidegate.errors import SinkRecordError
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import MissedWindow, PartitionState

DELTAS = pa.table({"window_start": [0, 60_000], "k": ["a", "b"]})
POSTGRES = [{"type": "postgres", "url": "postgresql://u:p@127.0.0.1:1/x"}]


def refuses(*_: object) -> None:
    raise SinkRecordError("the database refuses 1 of 2 rows", aggregation="totals", tp=TP, rows=(1,))


def test_a_recomputation_ends_when_a_row_is_refused_that_is_left_out() -> None:
    """A row that comes again without the records behind it would come for ever."""
    backfill = RecomputeBackfill(plan_of(sinks=POSTGRES).pipeline, cast(Any, None))
    tried: list[Part] = []

    def task(part: Part) -> Recomputed:
        tried.append(part)
        return Recomputed(part.split, PartitionState(9), {"totals": DELTAS}, None, [])

    part = Part(Split(TP, 0, 10), PartitionState())
    with pytest.raises(SinkRecordError):
        backfill._write(cast(Any, SimpleNamespace(write=refuses)), Here(), task, part, task(part), -1, 1)
    assert [len(one.refused) for one in tried] == [0, 1]


def test_an_amendment_ends_when_no_record_is_behind_what_is_refused() -> None:
    """Or only such as are left out already."""
    store, guard = SimpleNamespace(amend=refuses), Guard("store", ErrorHandling())
    stretches = Stretches(plan_of(), cast(Any, store), cast(Any, guard), "me")
    record = LateSource(TP, 3, 5, b"k", b'{"id": "a"}', (), (MissedWindow("totals", 0, 60_000),), False)
    asked: list[object] = []

    def behind(*_: object) -> list[int]:
        asked.append(None)
        return [3]

    amended = SimpleNamespace(deltas={"totals": DELTAS}, missed={}, rejected=[])
    stretches._amender = cast(Any, SimpleNamespace(run=lambda *_: amended, offsets_behind=behind))
    with pytest.raises(SinkRecordError):
        stretches.add([record], -1, 9)
    assert len(asked) == 2
