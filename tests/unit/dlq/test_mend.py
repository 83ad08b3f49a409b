"""Mending dead letters by SQL assignments."""

from __future__ import annotations

from typing import Any

import pytest

from dlq.replay.mend import Mend, Mended
from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError

SCHEMA = [
    {"name": "distance", "type": "bigint"},
    {"name": "price", "type": "decimal(10,2)"},
    {"name": "at", "type": "timestamp", "unit": "ms"},
    {"name": 'we"ird', "type": "string"},
]


def mend(*assignments: str) -> Mend:
    return Mend(Pipeline.model_validate({"pipelineId": "p", "schema": SCHEMA}), assignments)


def mended(assignment: str, value: bytes | None, key: bytes | None = b"k") -> Any:
    (result,) = mend(assignment).apply([(key, value)])
    return result


@pytest.mark.parametrize(
    ("assignment", "before", "after"),
    [
        ("value.distance = CASE WHEN distance > 0 THEN distance END", b'{"distance":0}', b'{"distance":null}'),
        ("value.distance = distance * 2", b'{"distance": 1, "big": 12345678901234567890123, "x":  1.50}',
         b'{"distance":2,"big":12345678901234567890123,"x":1.50}'),
        ("value.deep.er = price", b'{"price": "1.5"}', b'{"price":"1.5","deep":{"er":1.5}}'),
        ("value.deep.er = 1", b'{"deep": {"er": 0, "other": [1,  2]}}', b'{"deep":{"er":1,"other":[1,  2]}}'),
        ("value.distance = coalesce(distance, 7)", b'{"distance": "far"}', b'{"distance":7}'),
        ("value.at = CAST(\"at\" AS BIGINT) * 1000", b'{"at": 17}', b'{"at":17000}'),
        ("value.copy = value->'list'", b'{"list": [1, {"a": 2}]}', b'{"list":[1, {"a": 2}],"copy":[1,{"a":2}]}'),
        ("value.x = \"we\"\"ird\"", b'{"we\\"ird": "q"}', b'{"we\\"ird":"q","x":"q"}'),
        ("value = replace(value, 'NaN', 'null')", b'{"x": NaN}', b'{"x": null}'),
        ("value = {'d': distance}", b'{"distance": 3}', b'{"d":3}'),
        ("value = NULL", b"{}", None),
    ],
)  # fmt: skip
def test_values(assignment: str, before: bytes, after: bytes | None) -> None:
    """What is named is set, to what the record as it was makes of the expression; the rest keeps its bytes."""
    assert mended(assignment, before) == Mended(b"k", after, ("value",))


def test_keys() -> None:
    assert mended("key = upper(key) || '!'", b"\x00{") == Mended(b"K!", b"\x00{", ("key",))


def test_nothing_changes() -> None:
    """A record that an assignment leaves as it is keeps every byte, and does not count as changed."""
    assert mended("value.distance = distance", b'{ "distance": 5 }') == Mended(b"k", b'{ "distance": 5 }', ())


def test_all_see_the_record_as_it_was() -> None:
    (result,) = mend("value.distance = 1", "value.old = distance").apply([(None, b'{"distance": 9}')])
    assert result == Mended(None, b'{"distance":1,"old":9}', ("value",))


@pytest.mark.parametrize(
    ("assignment", "value", "problem"),
    [
        ("value.distance = 1", b"[1", "no JSON object"),
        ("value.distance = 1", b"[]", "no JSON object"),
        ("value.a.b = 1", b'{"a": 5}', "no JSON object"),
        ("value.distance = 1", b"\xff", "no UTF-8"),
        ("value.distance = 1", None, "no value"),
        ("value.n = CAST(value->>'card' AS BIGINT)", b'{"card": "secret-4111"}', "the expression fails"),
    ],
)
def test_what_cannot_be_mended(assignment: str, value: bytes | None, problem: str) -> None:
    """It is said why, without quoting the record; the others of the batch are mended."""
    good = b'{"card": "1", "a": {}}'
    first, last = mend(assignment).apply([(b"k", value), (b"k", good)])
    assert isinstance(first, str)
    assert problem in first
    assert "4111" not in first
    assert isinstance(last, Mended)


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("distance = 1", "not an assignment"),
        ("value.distance", "not an assignment"),
        ("value..x = 1", "not an assignment"),
        ("value.x = ", "not an assignment"),
        ("value.x = now()", "another answer tomorrow"),
        ("value.x = (SELECT 1)", "a subquery"),
        ("value.x = distanc", "did you mean 'distance'"),
        ("value.x = read_text('/etc/passwd')", "function"),
        ("value.x = 1) AS y, (2", "parse"),
    ],
)
def test_what_is_refused(assignment: str, problem: str) -> None:
    """One scalar, repeatable expression over the record, and nothing else."""
    with pytest.raises(ConfigError, match="--set") as error:
        mend(assignment)
    assert problem in str(error.value)
