"""The vectorised stages against the model in plain Python, whatever the batches."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.cutting import Account, results, run, stages_of
from tests.property.logs import PIPELINE, PIPELINES, logs
from tests.reference import Outcome, Record, Reference
from tidegate.config.pipeline import Pipeline
from tidegate.ledger import Ledger

pytestmark = pytest.mark.slow

_CUTS = st.one_of(st.just([1] * 60), st.just([7] * 10), st.just([]), st.lists(st.integers(1, 12), max_size=20))
_MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(document: str, records: list[Record], cuts: list[int], refused: dict[int, str] | None = None) -> Account:
    """Run both and compare all that they say."""
    plan, stages = stages_of(document)
    reference = Reference(Pipeline.model_validate_json(document))
    expected = reference.read(records, refused)
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
    )


def _same(found: dict[Any, dict[str, Any]], expected: dict[Any, dict[str, Any]]) -> None:
    assert found.keys() == expected.keys()
    for cell, values in expected.items():
        for name, value in values.items():
            close = pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value
            assert found[cell][name] == close, (cell, name)


@given(document=st.sampled_from(PIPELINES), records=logs(), cuts=_CUTS)
@_MANY
def test_any_cut_gives_what_the_model_gives(document: str, records: list[Record], cuts: list[int]) -> None:
    """Ledger, late records, rejections, high water, duplicates and results equal the model's, however the log is cut."""
    check(document, records, cuts)


@given(records=logs(), cuts=_CUTS, data=st.data())
@_MANY
def test_verdicts_keep_a_record_out_of_the_results_only(records: list[Record], cuts: list[int], data: Any) -> None:
    """A refused record is dead-lettered, counts in no window, and still moves the high water; no other record changes."""
    records = [record._replace(headers=()) for record in records]  # marks for replays have a test of their own
    document = json.dumps(PIPELINE)
    offsets = [record.offset for record in records]
    refused = data.draw(st.sets(st.sampled_from(offsets), max_size=5) if offsets else st.just(set()))
    check(document, records, cuts, {offset: "sink" for offset in refused})
    account = run(stages_of(document)[1], records, cuts, {offset: "sink" for offset in refused})
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
    from tests.property.cutting import TP
    from tests.reference import raw_batch
    from tidegate.stages.batch import PartitionState

    state = stages.run(raw_batch(TP, records[:middle]), PartitionState()).state
    state = stages.run(raw_batch(TP, records[back:]), state).state
    assert state == stages.run(raw_batch(TP, records), PartitionState()).state
