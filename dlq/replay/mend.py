"""Mending: SQL assignments over the value and the key of a dead letter.

value.distance = CASE WHEN distance > 0 THEN distance END     a field of the value, by path; NULL is JSON's null
value = replace(value, 'NaN', 'null')                         the whole value, as text
key = upper(key)                                              the key

An expression sees one record: the schema's columns by name (what does not fit its type is NULL; moments, lists and
structs as text), `value`, the whole value as text, and `key`. All expressions see the record as it was. Fields that are
not assigned keep their bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import msgspec
import pyarrow as pa

from dlq.fingerprint import normalise
from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError
from tidegate.stages.expressions import columns_of, infer_type, parenthesised
from tidegate.stages.prepared import EXPRESSION_FAILURES, Prepared, failing_rows, without
from tidegate.stages.sql import connect, literal, quote

FIELD = "--set"
_SIMPLE = {"string": "VARCHAR", "int": "INTEGER", "bigint": "BIGINT", "double": "DOUBLE", "boolean": "BOOLEAN"}
_ARROW = {
    "VARCHAR": pa.string(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
}
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")

Record = tuple[bytes | None, bytes | None]
"""Key and value."""


class Mended(NamedTuple):
    """A record after the assignments; `changed` names what is other than it was: key, value."""

    key: bytes | None
    value: bytes | None
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """`target`: ("key",), ("value",) or ("value", *path)."""

    target: tuple[str, ...]
    expression: str

    @classmethod
    def parse(cls, written: str) -> Assignment:
        """Raises ConfigError for something else than `target = expression`."""
        target, equals, expression = written.partition("=")
        steps = tuple(step.strip() for step in target.split("."))
        known = steps in (("key",), ("value",)) or (steps[0] == "value" and len(steps) > 1)
        if not equals or not all(steps) or not known or not expression.strip():
            raise ConfigError(
                "not an assignment",
                field=FIELD,
                value=written,
                expected="value.field = EXPRESSION, value = EXPRESSION or key = EXPRESSION",
            )
        return cls(steps, expression.strip())


class Mend:
    """The assignments of one request, checked. Used by one thread at a time."""

    def __init__(self, pipeline: Pipeline, assignments: Sequence[str]) -> None:
        """Raises ConfigError for what does not parse, is not scalar or could give another answer tomorrow."""
        self._assignments = [Assignment.parse(written) for written in assignments]
        types = _column_types(pipeline)
        schema = pa.schema([*((n, _arrow(t)) for n, t in types.items()), ("value", pa.string()), ("key", pa.string())])
        results: list[str] = []
        used: dict[str, str] = {}
        for number, one in enumerate(self._assignments):
            kind = infer_type(one.expression, schema, field=f"{FIELD} {'.'.join(one.target)}")
            as_text = one.target == ("key",) or (one.target == ("value",) and pa.types.is_string(kind))
            shown = parenthesised(one.expression) if as_text else f"to_json({parenthesised(one.expression)})"
            results.append(f"CAST({shown} AS VARCHAR) AS r{number}")
            used |= {name: types[name] for name in columns_of([one.expression], schema) if name in types}
        columns = [f"{_read(name, sql)} AS {quote(name)}" for name, sql in used.items()]
        inner = ", ".join(["value", "key", *columns])
        self._con = connect()
        self._query = Prepared(self._con, lambda rows: f"SELECT {', '.join(results)} FROM (SELECT {inner} FROM {rows})")

    def apply(self, records: Sequence[Record]) -> list[Mended | str]:
        """Each record mended, or why it cannot be."""
        results: list[Mended | str] = ["key or value is no UTF-8 text"] * len(records)
        texts = {row: text for row, record in enumerate(records) if (text := _texts(record)) is not None}
        rows = list(texts)
        table = pa.table(
            {
                "value": pa.array([texts[row][1] for row in rows], pa.string()),
                "key": pa.array([texts[row][0] for row in rows], pa.string()),
            }
        )
        try:
            found = self._query.run(table)
        except EXPRESSION_FAILURES:
            failed: dict[int, duckdb.Error] = dict(failing_rows(self._query.run, table))
            for at, error in failed.items():
                results[rows[at]] = (
                    f"the expression fails: {normalise(str(error).splitlines()[0])}"  # without what it quotes
                )
            kept = without(len(rows), list(failed))
            rows = [rows[at] for at in kept]
            found = self._query.run(table.take(pa.array(kept)))
        for row, answers in zip(rows, zip(*(column.to_pylist() for column in found.columns), strict=True), strict=True):
            results[row] = self._assigned(records[row], answers)
        return results

    def close(self) -> None:
        self._con.close()

    def _assigned(self, record: Record, answers: Sequence[str | None]) -> Mended | str:
        key, value = record
        try:
            for one, answer in zip(self._assignments, answers, strict=True):
                encoded = None if answer is None else answer.encode()
                if one.target == ("key",):
                    key = encoded
                elif one.target == ("value",):
                    value = encoded
                elif value is None:
                    return "it has no value, so there is no field to set"
                else:
                    value = assign(value, one.target[1:], encoded or b"null")
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return f"the value is no JSON object, so {'.'.join(one.target)} cannot be set"
        changed = tuple(name for name, same in (("key", key == record[0]), ("value", value == record[1])) if not same)
        return Mended(key, value, changed)


def assign(data: bytes, path: Sequence[str], encoded: bytes) -> bytes:
    """`data`, a JSON object, with the field at `path` set; everything else keeps its bytes.

    Raises msgspec.MsgspecError when there is something else than an object on the way.
    """
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    name, rest = path[0], path[1:]
    before = bytes(fields[name]) if name in fields else None
    after = assign(before or b"{}", rest, encoded) if rest else encoded
    if before is not None and before == after:
        return data
    return msgspec.json.encode({**fields, name: msgspec.Raw(after)})


def _column_types(pipeline: Pipeline) -> dict[str, str]:
    """The SQL type in which an expression sees each column."""
    types: dict[str, str] = {}
    for column in pipeline.schema_:
        if column.name not in ("value", "key"):
            decimal = _DECIMAL.fullmatch(column.type)
            types[column.name] = column.type.upper() if decimal else _SIMPLE.get(column.type, "VARCHAR")
    return types


def _arrow(sql: str) -> pa.DataType:
    decimal = _DECIMAL.fullmatch(sql.lower())
    return pa.decimal128(int(decimal[1]), int(decimal[2])) if decimal else _ARROW[sql]


def _read(name: str, sql: str) -> str:
    path = '$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    text = f"json_extract_string(value, {literal(path)})"
    return f"CASE WHEN json_valid(value) THEN TRY_CAST({text} AS {sql}) END"


def _texts(record: Record) -> tuple[str | None, str | None] | None:
    try:
        key, value = (None if data is None else data.decode() for data in record)
    except UnicodeDecodeError:
        return None
    return key, value
