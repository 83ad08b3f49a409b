"""Results as JSON that every reader takes, with every digit."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.worker.pieces import partition, plan_of, record
from tidegate.stages.plan import AggregationPlan, GroupColumn, MeasurePlan, PartialColumn
from tidegate.stages.sql import connect
from worker.results import ResultEncoder


def encoder(group: dict[str, pa.DataType], value: pa.DataType) -> ResultEncoder:
    """For one measure `v`, the smallest value of a type."""
    measure = MeasurePlan("v", "min", "v", value, (PartialColumn("v__min", value),), value)
    columns = tuple(GroupColumn(name, f'"{name}"', kind) for name, kind in group.items())
    return ResultEncoder(AggregationPlan("agg", 1000, 1000, columns, (measure,), "updates", False), connect())


def encode(kind: pa.DataType, value: Any, start: int = 0, text: str | None = "x") -> tuple[Any, Any]:
    """Key and value, with numbers that have a point as Decimal."""
    rows = pa.table(
        {
            "window_start": pa.array([start]),
            "window_end": pa.array([start + 1000]),
            "g": pa.array([text], pa.string()),
            "v__min": pa.array([value], kind),
            "records": pa.array([1]),
            "upto": pa.array([7]),
            "revision": pa.array([3]),
        }
    )
    keys, values = encoder({"g": pa.string()}, kind).encode(rows, ['{"t-0": 7}'], pa.array([True]))
    msgspec.json.decode(values[0])
    return json.loads(keys[0]), json.loads(values[0], parse_float=Decimal)


@given(unscaled=st.integers(-(10**38) + 1, 10**38 - 1), scale=st.integers(0, 38))
@settings(max_examples=50, deadline=None)
def test_decimals_keep_all_their_digits(unscaled: int, scale: int) -> None:
    """A number of 38 digits is in the JSON as it is, wherever its point."""
    value = Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -scale))
    found = encode(pa.decimal128(38, scale), value)[1]["values"]["v"]
    assert Decimal(found) == value


def test_integers_beyond_a_double_are_exact() -> None:
    """2^63 − 1 is no power of two."""
    assert encode(pa.int64(), 2**63 - 1)[1]["values"]["v"] == 2**63 - 1


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_any_text_comes_back(text: str) -> None:
    """Quotes, controls and every script survive, in the value and in the group."""
    if "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
        return
    key, row = encode(pa.string(), text, text=text)
    assert (row["values"]["v"], row["group"]["g"], key["group"]["g"]) == (text, text, text)


def test_nothing_is_null() -> None:
    """A measure without values and a group that is null are null, not absent."""
    key, row = encode(pa.decimal128(10, 2), None, text=None)
    assert (row["values"], row["group"], key["group"]) == ({"v": None}, {"g": None}, {"g": None})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_number_for_is_null(value: float) -> None:
    """A sum that is not a number does not make the record unreadable."""
    assert encode(pa.float64(), value)[1]["values"]["v"] is None


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (pa.timestamp("us"), datetime(2013, 1, 1, 5, tzinfo=UTC), "2013-01-01 05:00:00"),
        (pa.timestamp("us"), datetime(1969, 1, 1, 5, 0, 0, 250_000, tzinfo=UTC), "1969-01-01 05:00:00.25"),
        (pa.timestamp("us", "UTC"), datetime(2013, 1, 1, 5, tzinfo=UTC), "2013-01-01 05:00:00"),
        (pa.date32(), date(2013, 1, 1), "2013-01-01"),
        (pa.binary(), b"a\\\x00\xff", "a\\x5C\\x00\\xFF"),
        (pa.bool_(), True, True),
    ],
)
def test_moments_and_bytes_are_text(kind: pa.DataType, value: Any, shown: Any) -> None:
    """SQL's form of a moment, in UTC, and its form of bytes."""
    assert encode(kind, value)[1]["values"]["v"] == shown


def test_a_result_says_what_it_is() -> None:
    """Window bounds in milliseconds and UTC, also before 1970; upto, revision and final as they were given."""
    key, row = encode(pa.int64(), 1, start=-1500)
    assert key == {"aggregation": "agg", "start": "1969-12-31T23:59:58.500Z", "group": {"g": "x"}}
    assert row == {
        "aggregation": "agg",
        "window": {"start": "1969-12-31T23:59:58.500Z", "end": "1969-12-31T23:59:59.500Z"},
        "group": {"g": "x"},
        "values": {"v": 1},
        "records": 1,
        "upto": {"t-0": 7},
        "revision": 3,
        "final": True,
    }


def test_a_group_of_no_columns_is_an_empty_object(tmp_path: Path) -> None:
    """One window, one result: the whole topic (on the way to the merge agent)."""
    with partition(plan_of(group=()), tmp_path / "state") as p:
        p.take(record(0, 1000))
        assert "p.totals" not in p.sent
        assert len(p.sent["p..partials"]) == 1 + 3  # a partial, and the watermark for each partition
