"""The measures: exact where they promise it, and the same however the records are cut into batches."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from tests.unit.stages.building import counting, log, plan_of, result_rows, run
from tidegate.errors import AggregateOverflow
from tidegate.stages.batch import PartitionState
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import Plan

_KINDS = {
    "n": "count",
    "given": {"type": "count", "of": "small"},
    "total": {"type": "sum", "of": "small"},
    "mean": {"type": "avg", "of": "small"},
    "low": {"type": "min", "of": "small"},
    "high": {"type": "max", "of": "small"},
    "distinct": {"type": "approxDistinct", "of": "small"},
    "opening": {"type": "first", "of": "small"},
    "closing": {"type": "last", "of": "small"},
}


def measured(measures: dict[str, Any], *rows: dict[str, Any], cuts: tuple[int, ...] = ()) -> dict[str, Any]:
    """The measures over one window's rows, the batch cut after each index in `cuts`."""
    plan = plan_of(aggregations=[counting(measures)])
    [row] = result_rows(plan, *deltas(plan, list(rows), cuts))
    return {name: row[name] for name in measures}


def deltas(plan: Plan, rows: list[dict[str, Any]], cuts: tuple[int, ...]) -> list[Any]:
    stages, state, found = StagePipeline(plan), PartitionState(), []
    bounds = [0, *cuts, len(rows)]
    for start, end in pairwise(bounds):
        result = run(stages, log(*({"at": 0} | row for row in rows[start:end]), start=start), state)
        state = result.state
        found.append(result.deltas["per_second"])
    return found


@pytest.mark.parametrize("cuts", [(), (2,), (1, 2, 3)])
def test_every_kind_over_values_and_a_null(cuts: tuple[int, ...]) -> None:
    """Nulls are left out by all but the plain count; the same from one batch and from four."""
    rows: list[dict[str, Any]] = [
        {"small": 7, "at": 5},
        {"small": None, "at": 0},
        {"small": 3, "at": 5},
        {"small": 7, "at": 1},
    ]
    assert measured(_KINDS, *rows, cuts=cuts) == {
        "n": 4, "given": 3, "total": Decimal(17), "mean": pytest.approx(17 / 3), "low": 3, "high": 7,
        "distinct": 2, "opening": 7, "closing": 3,
    }  # fmt: skip


@pytest.mark.parametrize("cuts", [(), (1,)])
def test_without_a_value_there_is_no_result(cuts: tuple[int, ...]) -> None:
    """Counts are zero, everything else is null: a sum of nothing is not zero."""
    found = measured(_KINDS, {"small": None}, {"small": None}, cuts=cuts)
    assert {name for name, value in found.items() if value is None} == {
        "total",
        "mean",
        "low",
        "high",
        "opening",
        "closing",
    }
    assert (found["n"], found["given"], found["distinct"]) == (2, 0, 0)


@pytest.mark.parametrize("cuts", [(), (1, 2)])
def test_first_and_last_go_by_event_time_then_offset(cuts: tuple[int, ...]) -> None:
    """Of records at the same moment the smaller offset is first and the larger one last; null values do not count."""
    rows: list[dict[str, Any]] = [
        {"text": "b", "at": 5},
        {"text": "a", "at": 5},
        {"text": "z", "at": 6},
        {"text": None, "at": 9},
    ]
    ends = {"first": {"type": "first", "of": "text"}, "last": {"type": "last", "of": "text"}}
    assert measured(ends, *rows, cuts=cuts) == {"first": "b", "last": "z"}
    assert measured(ends, *rows[:2], cuts=cuts[:1]) == {"first": "b", "last": "a"}


@pytest.mark.parametrize("cuts", [(), (1,)])
def test_sums_of_integers_go_beyond_64_bits(cuts: tuple[int, ...]) -> None:
    """Three of the largest bigint add up exactly."""
    rows = [{"big": 2**63 - 1}] * 3
    assert measured({"s": {"type": "sum", "of": "big"}}, *rows, cuts=cuts) == {"s": Decimal(3 * (2**63 - 1))}


@pytest.mark.parametrize("cuts", [(), (1, 2)])
def test_sums_of_decimals_are_exact(cuts: tuple[int, ...]) -> None:
    """0.10 + 0.20 + 0.30 is 0.60 and nothing else."""
    expression = "CAST(small AS DECIMAL(10, 2)) / 10"
    rows = [{"small": 1}, {"small": 2}, {"small": 3}]
    found = measured({"s": {"type": "sum", "of": f"CAST({expression} AS DECIMAL(10, 2))"}}, *rows, cuts=cuts)
    assert found == {"s": Decimal("0.60")}


@pytest.mark.parametrize("cuts", [(), (1,)])
@pytest.mark.parametrize("digits", ["5" + "0" * 35, "9" + "0" * 35])
def test_a_sum_beyond_38_digits_is_an_error(digits: str, cuts: tuple[int, ...]) -> None:
    """It neither wraps nor shows a 39th digit, within a batch and in the merge; the error says which measure and
    why.
    """
    rows = [{"user": digits}] * 3
    expression = 'CAST("user" AS DECIMAL(38, 2))'
    plan = plan_of(aggregations=[counting({"s": {"type": "sum", "of": expression}})])
    with pytest.raises(AggregateOverflow, match="more than 38 digits"):
        result_rows(plan, *deltas(plan, rows, cuts))


@pytest.mark.parametrize("cuts", [(), (1,), (3, 6), tuple(range(1, 10))])
def test_sums_of_doubles_do_not_depend_on_the_batches(cuts: tuple[int, ...]) -> None:
    """Sums are compensated: ten times 0.1 is 1.0, where a plain sum gives 0.9999999999999999."""
    assert measured({"s": {"type": "sum", "of": "ratio"}}, *[{"ratio": 0.1}] * 10, cuts=cuts) == {"s": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("values", [50, 3_000])
def test_distinct_counts_do_not_depend_on_the_batches(values: int) -> None:
    """Exact while small, within 5 % when large, and the very same number from one batch and from seven."""
    rows = [{"big": number % values} for number in range(2 * values)]
    kinds = {"d": {"type": "approxDistinct", "of": "big"}}
    whole = measured(kinds, *rows)
    assert whole == measured(kinds, *rows, cuts=tuple(range(values // 4, 2 * values, values // 4)))
    assert whole["d"] == (values if values < 300 else pytest.approx(values, rel=0.05))


def test_minus_zero_is_no_value_of_its_own() -> None:
    """0.0 and −0.0 are one distinct value."""
    kinds = {"d": {"type": "approxDistinct", "of": "ratio"}}
    assert measured(kinds, {"ratio": 0.0}, {"ratio": -0.0}) == {"d": 1}
