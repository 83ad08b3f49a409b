"""compile_plan: every expression typed, every mistake named by its field."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.unit.stages.building import counting, pipeline_of, plan_of
from tidegate.errors import ConfigError
from tidegate.stages.handle import HandlerChain
from tidegate.stages.plan import compile_plan


def measure(kind: str, of: str) -> dict[str, Any]:
    return counting({"m": {"type": kind, "of": of}})


@pytest.mark.parametrize(
    ("parts", "field", "expected"),
    [
        ({"eventTime": {"column": "text"}}, "eventTime.column", "a column of type timestamp"),
        ({"eventTime": {"column": "big"}}, "eventTime.column", "a column of type timestamp"),
        ({"dedupe": {"key": "ratio", "horizon": "1 hour"}}, "dedupe.key", "double"),
        ({"dedupe": {"key": "tags", "horizon": "1 hour"}}, "dedupe.key", "string, int"),
        ({"dedupe": {"key": "usr", "horizon": "1 hour"}}, "dedupe.key", "user"),
        ({"aggregations": [counting(groupBy=["ratio"])]}, "aggregations[0].groupBy[0].name", "DECIMAL"),
        ({"aggregations": [counting(groupBy=["tags"])]}, "aggregations[0].groupBy[0].name", "string, int"),
        (
            {"aggregations": [counting(groupBy=["user", {"name": "x", "expression": "smal + 1"}])]},
            "aggregations[0].groupBy[1].expression",
            "small",
        ),
        ({"aggregations": [counting({"a__b": "count"})]}, "aggregations[0].measures.a__b", "another name"),
        ({"aggregations": [counting({"_a": "count"})]}, "aggregations[0].measures._a", "another name"),
        (
            {"aggregations": [counting(groupBy=[{"name": "_g", "expression": "small"}])]},
            "aggregations[0].groupBy[0].name",
            "another name",
        ),
        ({"aggregations": [counting(), measure("sum", "text")]}, "aggregations[1].measures.m.of", "int, bigint"),
        ({"aggregations": [measure("sum", "flag")]}, "aggregations[0].measures.m.of", "int, bigint"),
        ({"aggregations": [measure("avg", '"at"')]}, "aggregations[0].measures.m.of", "int, bigint"),
        ({"aggregations": [measure("max", "tags")]}, "aggregations[0].measures.m.of", "date or timestamp"),
        ({"aggregations": [measure("last", "tags")]}, "aggregations[0].measures.m.of", "date or timestamp"),
        ({"aggregations": [measure("approxDistinct", "tags")]}, "aggregations[0].measures.m.of", "date or timestamp"),
        ({"aggregations": [measure("sum", "small + random()")]}, "aggregations[0].measures.m.of", "random"),
    ],
)
def test_a_mistake_is_named_by_its_field(parts: dict[str, Any], field: str, expected: str) -> None:
    """The error has the field's path, what was found, and the way out."""
    aggregations = [item | {"name": f"a{index}"} for index, item in enumerate(parts.get("aggregations", ()))]
    with pytest.raises(ConfigError) as caught:
        compile_plan(pipeline_of(**(parts | ({"aggregations": aggregations} if aggregations else {}))))
    assert caught.value.field == field
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "of", "value_type", "result"),
    [
        ("count", "tags", pa.list_(pa.string()), pa.int64()),
        ("sum", "small", pa.int32(), pa.decimal128(38, 0)),
        ("sum", "price", pa.decimal128(38, 2), pa.decimal128(38, 2)),
        ("sum", "ratio", pa.float64(), pa.float64()),
        ("sum", "CAST(ratio AS FLOAT)", pa.float64(), pa.float64()),
        ("avg", "big", pa.int64(), pa.float64()),
        ("min", "CAST(small AS TINYINT)", pa.int32(), pa.int32()),
        ("max", "CAST(big AS UBIGINT)", pa.decimal128(20, 0), pa.decimal128(20, 0)),
        ("max", "CAST(big AS HUGEINT)", pa.decimal128(38, 0), pa.decimal128(38, 0)),
        ("first", 'CAST("at" AS TIMESTAMPTZ)', pa.timestamp("us"), pa.timestamp("us")),
        ("last", "CAST(\"user\" AS ENUM('a', 'b'))", pa.string(), pa.string()),
        ("approxDistinct", "flag", pa.bool_(), pa.int64()),
    ],
)
def test_measures_are_typed(kind: str, of: str, value_type: pa.DataType, result: pa.DataType) -> None:
    """Types that the schema does not know are settled to one that it knows, without loss."""
    [planned] = plan_of(aggregations=[measure(kind, of)]).aggregations[0].measures
    assert planned.result_type == result
    assert planned.value_type == value_type or kind == "count"


@pytest.mark.parametrize(
    ("source", "group_by", "handlers", "spreads"),
    [
        ({"topics": ["a"], "key": {"column": "carrier"}}, ["carrier", "user"], [], False),
        ({"topics": ["a"], "key": {"column": "carrier"}}, ["user"], [], True),
        ({"topics": ["a"], "key": {"column": "carrier"}}, [{"name": "c", "expression": "carrier"}], [], True),
        ({"topics": ["a", "b"], "key": {"column": "carrier"}}, ["carrier"], [], True),
        ({"topics": ["a"]}, ["user"], [], True),
        ({"topics": ["a"], "key": {"column": "carrier"}}, ["carrier"], [{"call": "x.y:z"}], True),
    ],
)
def test_groups_spread_unless_the_key_is_in_them(
    source: dict[str, Any], group_by: list[Any], handlers: list[Any], spreads: bool
) -> None:
    """Only where the records' key chose the partition and is part of the group does a group stay in one partition."""
    plan = plan_of(source=source, handlers=handlers, aggregations=[counting(groupBy=group_by)])
    assert plan.aggregations[0].spreads is spreads


@pytest.mark.parametrize(
    ("mode", "emit", "given"),
    [
        (None, "updates", "updates"),
        (None, "final", "final"),
        ("append", "updates", "final"),
        ("update", "updates", "updates"),
    ],
)
def test_a_kafka_sink_says_what_a_worker_sends_to_it(mode: str | None, emit: str, given: str) -> None:
    """`outputMode: append` is `emit: final` for all aggregations."""
    plan = plan_of(sinks=[{"type": "kafka", "outputMode": mode}], aggregations=[counting(emit=emit)])
    assert plan.aggregations[0].emit == given


def test_the_columns_after_the_handlers_are_those_the_chain_gives() -> None:
    """The last handler that declares its output decides; the plan and the chain agree, and the plan imports no
    handler.
    """
    call = "tests.unit.stages.building:noted"
    output = [{"name": "text", "type": "string"}, {"name": "extra", "type": "date"}]
    plan = plan_of(handlers=[{"call": call, "output": output}, {"call": call}])
    chain = HandlerChain(plan.pipeline, plan.decoded)
    assert plan.columns == chain.output_schema
    chain.close()
    assert plan.columns.names == ["text", "extra"]
