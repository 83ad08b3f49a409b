"""What `tidegate check` says of mistakes that only show when the stages are made: all that an error must, in the file's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tidegate.cli.main import app

pytestmark = pytest.mark.slow  # the first check imports DuckDB

_FILE: dict[str, Any] = {
    "pipelineId": "orders",
    "source": {"topics": ["orders"]},
    "schema": [
        {"name": "order_id", "type": "string"},
        {"name": "ordered_at", "type": "timestamp", "format": "iso8601"},
        {"name": "country", "type": "string"},
        {"name": "amount", "type": "decimal(12,2)"},
        {"name": "weight", "type": "double"},
        {"name": "pieces", "type": "int"},
    ],
    "eventTime": {"column": "ordered_at"},
}


def _expect(expression: str) -> dict[str, Any]:
    return {"rules": [{"type": "expect", "name": "one", "expression": expression}]}


def _rule(**rule: Any) -> dict[str, Any]:
    return {"rules": [rule]}


def _aggregation(**parts: Any) -> dict[str, Any]:
    whole = {"name": "sales", "window": {"size": "1 minute"}, "groupBy": ["country"], "measures": {"n": "count"}}
    return {"aggregations": [{**whole, **parts}]}


def _handler(**parts: Any) -> dict[str, Any]:
    return {"handlers": [parts]}


_ODD_FORMAT = {"name": "t", "type": "timestamp", "format": "%Q"}

# What is changed in the file; the field, what was found there, what was expected, and the nearest right name or the way out.
_CASES: list[tuple[dict[str, Any], str, str, str, str | None]] = [
    (_expect("amuont > 0"),
     "rules[0].expression", "amuont > 0", "amount (decimal(12,2)), weight (double), pieces (int)", "'amount'"),
    (_expect("uper(country) = 'DE'"), "rules[0].expression", "uper(", "a scalar function", "did you mean upper?"),
    (_expect("ordered_at < now()"), "rules[0].expression", "now()", "the record alone", "use a column of the record"),
    (_expect("ordered_at < current_date"), "rules[0].expression", "current_date", "the record alone", "use a column"),
    (_expect("amount + 1"), "rules[0].expression", "amount + 1", "a condition", None),
    (_expect("amount > (SELECT 1)"), "rules[0].expression", "SELECT 1", "one scalar expression", None),
    (_expect("country IN (SELECT * FROM read_csv('x'))"),
     "rules[0].expression", "read_csv", "one scalar expression", None),
    (_expect("max(amount) > 1"), "rules[0].expression", "max(amount)", "one scalar expression", None),
    (_expect("amount >"), "rules[0].expression", "amount >", "a SQL expression", None),
    (_expect(" "), "rules[0].expression", "' '", "a SQL expression", None),
    (_rule(type="regex", column="country", pattern="(["),
     "rules[0].pattern", "([", "a regular expression of RE2", None),
    (_rule(type="regex", column="pieces", pattern="a"), "rules[0].column", "pieces (int)", "a string column", None),
    (_rule(type="length", column="amount", min=1),
     "rules[0].column", "amount (decimal(12,2))", "a string column", None),
    (_rule(type="range", column="pieces", min="abc"), "rules[0].min", "abc", "a number", None),
    (_rule(type="range", column="ordered_at", min="2014-01-01", max="2013-01-01"),
     "rules[0].min", "2014-01-01", "at most what `max` says", None),
    (_rule(type="allowedValues", column="pieces", values=[1, "DE"]), "rules[0].values[1]", "DE", "a number", None),
    (_aggregation(measures={"s": {"type": "sum", "of": "country"}}),
     "aggregations[0].measures.s.of", "country", "int, bigint, decimal or double", None),
    (_aggregation(measures={"s": {"type": "sum", "of": "wieght"}}),
     "aggregations[0].measures.s.of", "wieght", "weight (double)", "'weight'"),
    (_aggregation(groupBy=["weight"]), "aggregations[0].groupBy[0]", "weight", "string, int, bigint, decimal", "CAST("),
    (_aggregation(groupBy=[{"name": "w", "expression": "weight / 2"}]),
     "aggregations[0].groupBy[0].expression", "weight / 2", "string, int", "CAST("),
    ({"dedupe": {"key": "weight", "horizon": "1 hour"}},
     "dedupe.key", "weight", "string, int, bigint, decimal", "CAST("),
    ({"dedupe": {"key": "order_di", "horizon": "1 hour"}}, "dedupe.key", "order_di", "order_id (string)", "'order_id'"),
    (_handler(call="no_such_module:run"), "handlers[0].call", "no_such_module:run", "module:name", None),
    (_handler(call="json:dmups"), "handlers[0].call", "json:dmups", "a name that json has", "'dumps'"),
    (_handler(call="sys:path"), "handlers[0].call", "sys:path", "module:function", None),
    (_handler(call="os:getcwd"), "handlers[0].call", "os:getcwd", "a function of (record) or (record, context)", None),
    (_handler(call="time:time"), "handlers[0].call", "time:time", "a function of (record) or (record, context)", None),
    (_handler(call="json:dumps", retryOn=["builtins:len"]),
     "handlers[0].retryOn[0]", "builtins:len", "an exception's class", None),
    ({"eventTime": {"column": "country"}},
     "eventTime.column", "country", "a column of type timestamp", "type: timestamp"),
    ({"event_time": {"column": "country"},
     "eventTime": None}, "eventTime.column", "country", "a column of type timestamp", None),
    (
        {"schema": [*_FILE["schema"], {"name": "s", "type": "struct", "fields": [_ODD_FORMAT]}]},
        "schema[6].fields[0].format", "%Q", "iso8601, or a strptime format", None,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "field", "found", "expected", "hint"), _CASES)
def test_every_error_says_all_that_it_must(
    tmp_path: Path, change: dict[str, Any], field: str, found: str, expected: str, hint: str | None
) -> None:
    """File, line, field, what was found, what was expected, and the nearest right name or the way out where there is one."""
    file = tmp_path / "orders.yaml"
    content = {name: value for name, value in {**_FILE, **change}.items() if value is not None}
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    done = CliRunner().invoke(app, ["check", str(file), "--json"])
    assert done.exit_code == 2, done.output
    [problem] = json.loads(done.output)["problems"]
    assert (problem["file"], problem["field"]) == (str(file), field)
    line = file.read_text(encoding="utf-8").splitlines()[problem["line"] - 1]
    assert field.rpartition(".")[2].partition("[")[0] in line or line.strip().startswith("-"), line
    assert found in problem["found"]
    assert expected in problem["expected"]
    assert hint is None or hint in problem["hint"], problem
