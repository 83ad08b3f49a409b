"""Aggregation: partials per window, group and lane."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.unit.stages.building import NOTED, counting, log, plan_of, result_rows, run, stages_of
from tidegate.record import Stage
from tidegate.stages.aggregate import finalize, merge_partials, partial_schema
from tidegate.stages.sql import connect


def test_partials_have_the_declared_columns() -> None:
    """Window, lane, group, the measures' partial columns, records and upto, typed as the plan says."""
    measures = {"n": "count", "s": {"type": "sum", "of": "ratio"}, "f": {"type": "first", "of": "text"}}
    plan = plan_of(aggregations=[counting(measures, groupBy=["user"])])
    delta = run(stages_of(aggregations=[counting(measures, groupBy=["user"])]), log({"at": 1, "user": "ann"})).deltas
    assert delta["per_second"].schema == partial_schema(plan.aggregations[0])
    assert delta["per_second"].to_pylist() == [
        {
            "window_start": 0, "window_end": 1000, "lane": "live", "user": "ann", "n__n": 1, "s__sum": None, "s__n": 0,
            "f__first": None, "f__at": None, "f__offset": None, "records": 1, "upto": 0,
        }
    ]  # fmt: skip


def test_a_null_group_is_a_group() -> None:
    """Records whose group is null count together."""
    rows = result_of(log({"at": 0}, {"at": 1}, {"at": 2, "user": "ann"}), groupBy=["user"])
    assert [(row["user"], row["n"]) for row in rows] == [(None, 2), ("ann", 1)]


def test_groups_can_be_expressions_of_every_single_type() -> None:
    """A text, a number, a decimal, a boolean, a date and a moment can each be a group."""
    expressions = {
        "letter": "upper(\"user\")", "half": "small // 2", "money": "price", "is_big": "small > 3",
        "day": 'CAST("at" AS DATE)', "minute": "date_trunc('minute', \"at\")",
    }  # fmt: skip
    group_by = [{"name": name, "expression": expression} for name, expression in expressions.items()]
    [row] = result_of(log({"at": 61_000, "user": "x", "small": 5, "price": 2.5}), groupBy=group_by)
    assert [str(row[name]) for name in expressions] == ["X", "2", "2.50", "True", "1970-01-01", "1970-01-01 00:01:00"]


def result_of(records: list[Any], **parts: Any) -> list[dict[str, Any]]:
    aggregation = counting(**parts)
    return result_rows(
        plan_of(aggregations=[aggregation]), run(stages_of(aggregations=[aggregation]), records).deltas["per_second"]
    )


def test_a_hopping_window_counts_a_record_in_each_of_its_windows() -> None:
    """Two seconds long and starting every second, each record is in two windows, also before 1970."""
    window = {"type": "hopping", "size": "2 seconds", "hop": "1 second"}
    rows = result_of(log(-1_500, -500), window=window)
    assert sorted((row["window_start"], row["n"]) for row in rows) == [(-3_000, 1), (-2_000, 2), (-1_000, 1)]


def test_a_name_of_ours_in_the_schema_disturbs_nothing() -> None:
    """Columns called like the queries' own aliases are columns like any other."""
    columns = [{"name": name, "type": "int"} for name in ("_pane", "_order", "_g0", "_v0")]
    schema = [*columns, {"name": "at", "type": "timestamp", "unit": "ms"}]
    aggregation = counting(
        {"last": {"type": "last", "of": "_order"}}, groupBy=[{"name": "g", "expression": "_g0 + _pane"}]
    )
    stages = stages_of(schema=schema, aggregations=[aggregation])
    delta = run(stages, log({"at": 0, "_order": 9, "_g0": 1, "_pane": 2})).deltas["per_second"]
    assert (delta["g"].to_pylist(), delta["last__last"].to_pylist()) == ([3], [9])


_PARSING = counting(
    {"s": {"type": "sum", "of": "CAST(text AS INTEGER)"}}, groupBy=[{"name": "g", "expression": "100 // small"}]
)


def test_an_expression_that_fails_rejects_only_its_records() -> None:
    """They go to the dead letters at stage aggregate with DuckDB's message, out of all aggregations; the rest
    counts.
    """
    other = {"name": "other", "window": {"size": "1 minute"}, "measures": {"n": "count"}}
    rows = [{"at": 0, "text": text, "small": 1} for text in ("1", "x", "2", "", "3")]
    result = run(stages_of(aggregations=[_PARSING, other]), log(*rows))
    assert [(r.offset, r.stage, r.reasons[0].error_type) for r in result.rejected] == [
        (1, Stage.AGGREGATE, "ExpressionError"),
        (3, Stage.AGGREGATE, "ExpressionError"),
    ]
    assert "'x'" in result.rejected[0].reasons[0].message
    assert result.deltas["per_second"]["s__sum"].to_pylist() == [6]
    assert result.deltas["other"]["n__n"].to_pylist() == [3]
    assert (result.ledger.dead_lettered, result.ledger.accepted) == (2, 3)


def test_an_expression_is_not_tried_for_windows_that_had_closed() -> None:
    """A record that is late for the aggregation whose expression fails, and on time for another, is accepted."""
    other = {"name": "other", "window": {"size": "1 day"}, "measures": {"n": "count"}}
    rows = [{"at": 9_000, "text": "1", "small": 1}, {"at": 0, "text": "x", "small": 1}]
    result = run(stages_of(aggregations=[_PARSING, other]), log(*rows))
    assert (result.rejected, result.ledger.accepted) == ([], 2)


def test_handlers_are_not_called_again_when_an_expression_fails() -> None:
    """The records that are left are aggregated anew from what the handlers gave, once each."""
    stages = stages_of(
        handlers=[{"call": "tests.unit.stages.building:noted", "mode": "record"}], aggregations=[_PARSING]
    )
    NOTED.clear()
    run(stages, log(*({"at": 0, "text": text, "small": 1} for text in ("1", "x", "2"))))
    stages.close()
    assert NOTED == ["1", "x", "2"]


@pytest.mark.parametrize("lanes", [True, False])
def test_merging_keeps_lanes_apart_where_there_are_any(lanes: bool) -> None:
    """Live and replayed partials stay two rows; without the lane column they add up."""
    aggregation = counting()
    rows = log(0, {"at": 1, "_replay": True})
    delta = run(stages_of(aggregations=[aggregation]), rows).deltas["per_second"]
    plan, con = plan_of(aggregations=[aggregation]).aggregations[0], connect()
    merged = merge_partials(plan, [delta if lanes else delta.drop_columns(["lane"])] * 2, con)
    assert sorted(merged["n__n"].to_pylist()) == ([2, 2] if lanes else [4])
    assert merged.select(delta.drop_columns(["lane"]).column_names).schema == delta.drop_columns(["lane"]).schema
    con.close()


def test_results_come_in_the_order_of_the_partials() -> None:
    """So that a caller can lay them beside the rows that they are of; their types are the plan's."""
    measures = {
        "m": {"type": "avg", "of": "small"},
        "d": {"type": "approxDistinct", "of": "small"},
        "t": {"type": "max", "of": "at_"},
    }
    measures["t"]["of"] = '"at"'
    plan = plan_of(aggregations=[counting(measures, groupBy=["user"])])
    rows = log(*({"at": 0, "user": name, "small": 1} for name in "cab"))
    delta = (
        run(stages_of(aggregations=[counting(measures, groupBy=["user"])]), rows).deltas["per_second"].sort_by("user")
    )
    con = connect()
    shuffled = delta.take(pa.array([2, 0, 1]))
    finished = finalize(plan.aggregations[0], shuffled, con)
    con.close()
    assert finished["user"].to_pylist() == shuffled["user"].to_pylist() == ["c", "a", "b"]
    assert finished.schema.names == ["window_start", "window_end", "user", "m", "d", "t"]
    assert [finished.schema.field(m.name).type for m in plan.aggregations[0].measures] == [
        m.result_type for m in plan.aggregations[0].measures
    ]
