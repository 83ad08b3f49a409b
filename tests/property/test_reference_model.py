"""The vectorised stages against the model in plain Python, whatever the batches."""

from __future__ import annotations

import json
import random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.property.cutting import TP, Account, results, run, stages_of
from tests.property.logs import PIPELINE, PIPELINES, logs
from tests.reference import Outcome, Record, Reference, as_replay, raw_batch
from tidegate.config.pipeline import Pipeline
from tidegate.ledger import LEDGER_COLUMNS, Ledger
from tidegate.stages import repeats
from tidegate.stages.batch import PartitionState

pytestmark = pytest.mark.slow

_CUTS: st.SearchStrategy[list[int]] = st.one_of(
    st.just([1] * 60), st.just([7] * 10), st.just([]), st.lists(st.integers(1, 12), max_size=20)
)
# A log is not shrunk: that takes minutes, and 40 records can be read.
_MANY = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def check(
    document: str, records: list[Record], cuts: list[int], refused: dict[int, str] | None = None, *, jobs: int = 256
) -> Account:
    """Run both and compare all that they say. `jobs`: whose replays are remembered at most."""
    plan, stages = stages_of(document)
    reference = Reference(Pipeline.model_validate_json(document), jobs=jobs)
    expected = reference.read(records, refused)
    with patch.object(repeats, "MOST", jobs):
        account = run(stages, records, cuts, refused)
    assert account.state.ledger == _ledger(expected)
    assert (account.state.high_water, account.state.dedupe_clock) == (expected.high_water, expected.clock)
    assert account.accepted == expected.accepted
    assert account.rejected == expected.rejected
    assert sorted(account.late) == sorted(expected.late)
    assert account.missing == expected.missing()
    found = results(plan, account)
    for aggregation in reference.pipeline.aggregations:
        _same(found[aggregation.name], reference.results(expected, aggregation))
    return account


def _ledger(expected: Outcome) -> Ledger:
    late = sum(not late.partial for late in expected.late)
    return Ledger(
        read=expected.read,
        accepted=len(expected.accepted),
        dead_lettered=len(expected.rejected),
        late=late,
        duplicate=len(expected.duplicates),
        skipped=len(expected.skipped),
        replayed=expected.replayed,
    )


def _same(found: dict[Any, dict[str, Any]], expected: dict[Any, dict[str, Any]]) -> None:
    assert found.keys() == expected.keys()
    for cell, values in expected.items():
        for name, value in values.items():
            close = pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value
            assert found[cell][name] == close, (cell, name)


@given(document=st.sampled_from(PIPELINES), records=logs(), cuts=_CUTS, jobs=st.sampled_from([1, 2, 256]))
@_MANY
def test_any_cut_gives_what_the_model_gives(document: str, records: list[Record], cuts: list[int], jobs: int) -> None:
    """Ledger, lateness, rejections, high water, duplicates and results equal the model's, however the log is cut, and of
    however many jobs the replays are remembered."""
    check(document, records, cuts, jobs=jobs)


@given(records=logs(), cuts=_CUTS, data=st.data())
@_MANY
def test_what_a_sink_refused_keeps_a_record_out_of_the_results_only(
    records: list[Record], cuts: list[int], data: Any
) -> None:
    """A refused record is dead-lettered and counts in no window; it moves the high water as if it had not been."""
    document = json.dumps(PIPELINE)
    offsets = [record.offset for record in records]
    refused = data.draw(st.sets(st.sampled_from(offsets), max_size=5) if offsets else st.just(set()))
    check(document, records, cuts, dict.fromkeys(refused, "sink"))
    account = run(stages_of(document)[1], records, cuts, dict.fromkeys(refused, "sink"))
    untouched = run(stages_of(document)[1], records, cuts)
    assert account.state.high_water == untouched.state.high_water


@given(records=logs(max_size=25), data=st.data())
@_MANY
def test_overlapping_batches_count_once(records: list[Record], data: Any) -> None:
    """A batch that begins before `upto` is cut there, and the records before it are not counted again."""
    if not records:
        return
    document = PIPELINES[1]
    _, stages = stages_of(document)
    middle = data.draw(st.integers(0, len(records)))
    back = data.draw(st.integers(0, middle))
    state = stages.run(raw_batch(TP, records[:middle]), PartitionState()).state
    state = stages.run(raw_batch(TP, records[back:]), state).state
    assert state == stages.run(raw_batch(TP, records), PartitionState()).state


@pytest.mark.parametrize("size", [7, 500, 8192])
def test_a_long_log_gives_the_same_in_batches_of_any_size(size: int) -> None:
    """3 000 records with every kind of fault, in batches of 7, 500 and all at once, equal the model."""
    records = long_log(3_000)
    account = check(json.dumps(PIPELINE), records, [size] * (3_000 // size + 1))
    assert min(getattr(account.state.ledger, name) for name in LEDGER_COLUMNS if name not in _NOT_HERE) > 10
    assert any(late.partial for late in account.late)
    assert {"decode", "validate", "event_time"} == set(account.rejected.values())


_NOT_HERE = ("deferred", "filtered")


def long_log(length: int) -> list[Record]:
    """Time goes on by 20 ms a record; one in eight is out of order, one in ten faulty in some way, some are replays."""
    rng = random.Random(20130101)
    records = []
    for number in range(length):
        now = number * 20 - 10_000
        at = now - (rng.randrange(12_000) if rng.random() < 0.125 else rng.randrange(300))
        row: dict[str, Any] = {
            "id": rng.choice("abcd") if rng.random() < 0.3 else None,
            "user": rng.choice(["ann", "bob", "zoë", None]),
            "amount": rng.randrange(-2, 100),
            "total": rng.randrange(-(2**63), 2**63),
            "price": rng.random() * 100,
            "at": at + 50_000 if rng.random() < 0.01 else at,
        }
        if rng.random() < 0.02:
            row[rng.choice(["amount", "at"])] = "text"
        value = None if rng.random() < 0.01 else json.dumps(row).encode()
        record = Record(number, now, value)
        if rng.random() < 0.05:
            place = (rng.randrange(1, 40), f"flights/{rng.choice('0001')}")
            record = as_replay(record, "0123456789abcdef", *place) if rng.random() < 0.5 else as_replay(record)
        records.append(record)
    return records
