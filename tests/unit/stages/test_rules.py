"""Rules: what passes, what is rejected, what is only counted."""

# ruff: noqa: DTZ001 - timestamps in rows are naive, and UTC

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.stages.records import pipeline
from tidegate.errors import ConfigError, PipelineAborted
from tidegate.stages.rules import CHECKS, Checked, RuleSet
from tidegate.stages.types import value_schema

COLUMNS = [
    {"name": "n", "type": "bigint"},
    {"name": "f", "type": "double"},
    {"name": "p", "type": "decimal(10,2)"},
    {"name": "s", "type": "string"},
    {"name": "o", "type": "boolean"},
    {"name": "d", "type": "date"},
    {"name": "t", "type": "timestamp", "unit": "ms"},
    {"name": "a", "type": "array", "items": "int"},
]


def rule_set(*rules: dict[str, Any]) -> RuleSet:
    """The rules over COLUMNS."""
    written = pipeline(schema=COLUMNS, rules=list(rules))
    return RuleSet(written, value_schema(written))


def check(rules: list[dict[str, Any]], **columns: list[Any]) -> Checked:
    """The rules on rows with the given columns; the others are null, offsets count from 10."""
    compiled = rule_set(*rules)
    schema = value_schema(pipeline(schema=COLUMNS))
    length = len(next(iter(columns.values())))
    rows = pa.Table.from_pydict({name: columns.get(name, [None] * length) for name in schema.names}, schema=schema)
    return compiled.check(rows.append_column("_offset", pa.array(range(10, 10 + length))))


PASSES: list[tuple[dict[str, Any], str, list[Any], list[bool]]] = [
    ({"type": "notNull"}, "s", ["", None, "a"], [True, False, True]),
    ({"type": "notNull"}, "a", [[], None], [True, False]),
    ({"type": "range", "min": 1, "max": 3}, "n", [0, 1, 3, 4, None], [False, True, True, False, True]),
    ({"type": "range", "min": 0.5}, "n", [0, 1, 2**63 - 1, -(2**63)], [False, True, True, False]),
    ({"type": "range", "max": 9007199254740993}, "n", [2**53 + 1, 2**53 + 2], [True, False]),
    ({"type": "range", "min": 0.1}, "f", [0.1, 0.09999999999999999, 1e308], [True, False, True]),
    ({"type": "range", "max": 0.1}, "p", [Decimal("0.10"), Decimal("0.11")], [True, False]),
    ({"type": "range", "max": "12.34"}, "p", [Decimal("12.34"), Decimal("12.35")], [True, False]),
    ({"type": "range", "min": "b", "max": "c"}, "s", ["a", "b", "bz", "c", "c1"], [False, True, True, True, False]),
    ({"type": "range", "min": "2024-01-02"}, "d", [date(2024, 1, 1), date(2024, 1, 2)], [False, True]),
    (
        {"type": "range", "max": "2024-01-01T01:00:00+01:00"},
        "t",
        [datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 0, 0, 1)],
        [True, False],
    ),
    (
        {"type": "regex", "pattern": "[A-Z]{3}"},
        "s",
        ["JFK", "JFKX", "JFK\n", "", None],
        [True, False, False, False, True],
    ),
    ({"type": "regex", "pattern": "^a$|b"}, "s", ["a", "a\n", "b", "ab"], [True, False, True, False]),
    ({"type": "regex", "pattern": "it's"}, "s", ["it's", "its"], [True, False]),
    ({"type": "allowedValues", "values": ["a", ""]}, "s", ["a", "", "A", None], [True, True, False, True]),
    ({"type": "allowedValues", "values": [1, 2.0]}, "n", [1, 2, 3], [True, True, False]),
    ({"type": "allowedValues", "values": [True]}, "o", [True, False, None], [True, False, True]),
    ({"type": "allowedValues", "values": [0.1]}, "p", [Decimal("0.1"), Decimal("0.2")], [True, False]),
    ({"type": "allowedValues", "values": ["2024-01-01"]}, "d", [date(2024, 1, 1), date(2024, 1, 2)], [True, False]),
    ({"type": "length", "min": 1, "max": 2}, "s", ["", "é", "😀😀", "abc", None], [False, True, True, False, True]),
]


@pytest.mark.parametrize(("rule", "column", "values", "passed"), PASSES)
def test_a_rule_passes_what_it_says(rule: dict[str, Any], column: str, values: list[Any], passed: list[bool]) -> None:
    """Each rule on its column's type: bounds included, nulls pass unless the rule is about nulls."""
    assert check([{**rule, "column": column}], **{column: values}).passed.tolist() == passed


def test_every_rule_of_the_file_has_its_check_and_its_case_here() -> None:
    """No rule type is without a test: the table above and `expect` below."""
    assert {check.label for check in CHECKS.values()} == {rule["type"] for rule, *_ in PASSES} | {"expect"}


def test_an_expectation_must_be_true() -> None:
    """FALSE and NULL fail; with `nullPasses` only FALSE does."""
    rules: list[dict[str, Any]] = [{"type": "expect", "expression": "n > 1 -- large"}]
    assert check(rules, n=[2, 1, None]).passed.tolist() == [True, False, False]
    assert check([{**rules[0], "nullPasses": True}], n=[2, 1, None]).passed.tolist() == [True, False, True]


def test_a_record_keeps_all_the_rules_it_failed() -> None:
    """One rejection per record, with a reason per rule, in the order of the file."""
    rules: list[dict[str, Any]] = [{"type": "range", "column": "n", "max": 1}, {"type": "notNull", "column": "s"}]
    [rejection] = check(rules, n=[5, 1], s=[None, "a"]).rejected
    assert (rejection.offset, rejection.stage) == (10, "validate")
    assert [(r.error_type, r.rule, r.field, r.found) for r in rejection.reasons] == [
        ("RuleViolation", "range(n)", "n", "5"),
        ("RuleViolation", "notNull(s)", "s", "null"),
    ]


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_warning_is_counted_and_the_record_goes_on(severity: str) -> None:
    """Rules below severity error reject nothing; they count, and keep the first ten samples."""
    checked = check([{"type": "range", "column": "n", "max": 0, "severity": severity}], n=list(range(15)))
    tally = checked.tallies["range(n)"]
    assert checked.passed.all()
    assert checked.rejected == []
    assert (tally.severity, tally.failures) == (severity, 14)
    assert tally.samples == [(10 + n, str(n)) for n in range(1, 11)]


def test_error_rules_are_counted_too() -> None:
    """Every rule has its tally, also one that nothing failed."""
    tallies = check(
        [{"type": "notNull", "column": "n"}, {"type": "notNull", "column": "s"}], n=[1, None], s=["", ""]
    ).tallies
    assert {name: tally.failures for name, tally in tallies.items()} == {"notNull(n)": 1, "notNull(s)": 0}


def test_an_error_that_only_warns_lets_the_record_go_on() -> None:
    """`onFailure: warn` outweighs the severity."""
    assert check([{"type": "notNull", "column": "n", "onFailure": "warn"}], n=[None]).passed.all()


def test_abort_stops_the_pipeline_and_names_the_record() -> None:
    """`onFailure: abort` raises with rule, offset and value; nothing is dead-lettered."""
    with pytest.raises(PipelineAborted, match=r"'range\(n\)'.*offset 11.*found 7"):
        check([{"type": "range", "column": "n", "max": 1, "onFailure": "abort"}], n=[1, 7, 9])


def test_an_expression_that_breaks_fails_only_for_its_records() -> None:
    """A cast that one record cannot take rejects that record; the others, and the other rules, are judged as ever."""
    rules: list[dict[str, Any]] = [
        {"type": "expect", "expression": "CAST(s AS INTEGER) > 0"},
        {"type": "range", "column": "n", "max": 1},
    ]
    checked = check(rules, s=["1", "x", "0", "2"], n=[1, 2, 1, 2])
    assert checked.passed.tolist() == [True, False, False, False]
    assert [[r.error_type for r in one.reasons] for one in checked.rejected] == [
        ["ExpressionError", "RuleViolation"],
        ["RuleViolation"],
        ["RuleViolation"],
    ]
    assert checked.rejected[0].reasons[0].found == "s = x"


def test_default_names_are_unique() -> None:
    """Two rules of one kind on one column get two names; a given name is kept."""
    rule = {"type": "notNull", "column": "n"}
    assert rule_set(rule, {**rule, "name": "mine"}, rule, rule).names == [
        "notNull(n)",
        "mine",
        "notNull(n)#2",
        "notNull(n)#3",
    ]


def test_no_rules_and_no_rows_pass() -> None:
    """A pipeline without rules passes everything, and an empty batch is no problem."""
    assert check([], n=[1]).passed.tolist() == [True]
    assert check([{"type": "notNull", "column": "n"}], n=[]).passed.tolist() == []


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"type": "range", "column": "o", "min": 1}, "column"),
        ({"type": "range", "column": "a", "min": 1}, "column"),
        ({"type": "range", "column": "n", "min": "1"}, "min"),
        ({"type": "range", "column": "s", "max": 1}, "max"),
        ({"type": "range", "column": "p", "max": "much"}, "max"),
        ({"type": "range", "column": "d", "min": "01/02/2024"}, "min"),
        ({"type": "range", "column": "t", "min": "2024-13-01"}, "min"),
        ({"type": "range", "column": "d", "min": "2024-01-02", "max": "2024-01-01"}, "min"),
        ({"type": "regex", "column": "n", "pattern": "x"}, "column"),
        ({"type": "regex", "column": "s", "pattern": "("}, "pattern"),
        ({"type": "regex", "column": "s", "pattern": "(?=a)"}, "pattern"),
        ({"type": "allowedValues", "column": "n", "values": ["1"]}, "values[0]"),
        ({"type": "allowedValues", "column": "n", "values": [1, True]}, "values[1]"),
        ({"type": "allowedValues", "column": "a", "values": [1]}, "column"),
        ({"type": "length", "column": "a", "min": 1}, "column"),
        ({"type": "expect", "expression": "n + 1"}, "expression"),
        ({"type": "expect", "expression": "now() > t"}, "expression"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_when_the_pipeline_is_compiled(rule: dict[str, Any], field: str) -> None:
    """Types, bounds, patterns and expressions are checked against the schema, and the field is named."""
    with pytest.raises(ConfigError) as caught:
        rule_set(rule)
    assert caught.value.field == f"rules[0].{field}"


def test_a_number_too_large_for_sql_is_refused_when_the_pipeline_is_compiled() -> None:
    """What only DuckDB can refuse is refused before the first record."""
    with pytest.raises(ConfigError, match=r"rules\[0\]"):
        rule_set({"type": "range", "column": "p", "max": "1" + "0" * 50})
