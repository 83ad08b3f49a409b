"""The schema's types in Arrow: what each column of the pipeline file becomes, and the names that tidegate keeps for itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

import pyarrow as pa

from tidegate.config.pipeline import Pipeline
from tidegate.config.schema import Column
from tidegate.errors import ConfigError

OFFSET, TIMESTAMP, LANE, EVENT_TIME, KEY = "_offset", "_timestamp", "_lane", "_event_time", "_key"
RESERVED = (OFFSET, TIMESTAMP, LANE, EVENT_TIME, KEY)
"""Columns that travel beside the decoded ones; a column of the schema cannot have such a name."""

_SIMPLE: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),  # naive: always UTC
}
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")
_TYPES = (*_SIMPLE, "decimal(p,s)", "array", "struct")
MAX_DECIMAL_PRECISION = 38  # digits that fit 128 bits, here, in DuckDB and in Spark


def arrow_type(column: Column, *, field: str | None = None) -> pa.DataType:
    """The Arrow type of a column; timestamps are naive UTC microseconds.

    `field` is the path shown in the ConfigError for an unknown type, a decimal that does not fit 128 bits, an array without
    `items` or a struct without `fields`.
    """
    where = field or f"schema.{column.name}"
    kind = column.type.strip().lower()
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind == "array":
        if column.items is None:
            raise ConfigError("an array needs `items`", field=where, hint="items: {name: item, type: string}")
        return pa.list_(pa.field("item", arrow_type(column.items, field=f"{where}.items"), column.items.nullable))
    if kind == "struct":
        if not column.fields:
            raise ConfigError("a struct needs `fields`", field=where, hint="fields: [{name: city, type: string}]")
        _distinct(column.fields, f"{where}.fields")
        return pa.struct(
            [pa.field(f.name, arrow_type(f, field=f"{where}.{f.name}"), f.nullable) for f in column.fields]
        )
    if (parsed := _DECIMAL.fullmatch(kind)) is not None:
        return _decimal(int(parsed[1]), int(parsed[2]), where, column.type)
    nearest = get_close_matches(kind, _TYPES, n=1)
    raise ConfigError(
        "no such type",
        field=f"{where}.type",
        value=column.type,
        expected=", ".join(_TYPES),
        hint=f"did you mean {nearest[0]}?" if nearest else None,
    )


def _decimal(precision: int, scale: int, where: str, written: str) -> pa.DataType:
    if not (1 <= precision <= MAX_DECIMAL_PRECISION and scale <= precision):
        raise ConfigError(
            "a decimal that cannot be held",
            field=f"{where}.type",
            value=written,
            expected=f"decimal(p,s) with 1 ≤ p ≤ {MAX_DECIMAL_PRECISION} digits, s of them after the point, s ≤ p",
        )
    return pa.decimal128(precision, scale)


def _distinct(columns: Sequence[Column], where: str) -> None:
    """SQL does not tell `Id` from `id`, so two such columns cannot live in one table."""
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.setdefault(column.name.lower(), column.name)
        if other is not column.name:
            problem = "two columns of one name" if other == column.name else f"differs from {other!r} only in its case"
            raise ConfigError(
                problem, field=where, value=column.name, expected="names that differ, whatever their case"
            )


def value_schema(pipeline: Pipeline) -> pa.Schema:
    """The decoded columns in the order of the file; the key's column comes last if `source.key.column` names one.

    Raises ConfigError for a reserved name, a name used twice (case does not count), or a type that does not exist.
    """
    columns = list(pipeline.schema_)
    fields = [pa.field(column.name, arrow_type(column), column.nullable) for column in columns]
    if pipeline.source is not None and (key := pipeline.source.key).column is not None:
        columns.append(Column(name=key.column, type="string"))
        fields.append(pa.field(key.column, pa.string() if key.format == "string" else pa.binary()))
    _distinct(columns, "schema")
    for column in columns:
        if column.name.lower() in RESERVED:
            raise ConfigError(
                "this name is tidegate's own", field="schema", value=column.name, hint="choose another name"
            )
    return pa.schema(fields)


def nearest_name(name: str, names: Sequence[str]) -> str | None:
    """The most similar of `names`, for "did you mean"; None when nothing is close."""
    lowered = {known.lower(): known for known in names}
    close = get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return lowered[close[0]] if close else None
