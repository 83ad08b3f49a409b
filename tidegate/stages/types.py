"""The schema's types in Arrow, and the names of the columns that travel beside the decoded ones."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache

import pyarrow as pa

from tidegate.config.pipeline import Pipeline
from tidegate.config.schema import Column

OFFSET, TIMESTAMP, LANE, EVENT_TIME, KEY = "_offset", "_timestamp", "_lane", "_event_time", "_key"
"""Offset and Kafka timestamp (int64, ms), lane (string), event time (int64, ms, nullable); and from decode to handle,
where a handler runs several records at once, the key (binary, nullable). No column of the schema is called so."""

_SIMPLE: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),  # naive: always UTC
}
_NAMES = {arrow: name for name, arrow in _SIMPLE.items()}
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type of a column (the model has checked it); timestamps are naive UTC microseconds."""
    if column.type == "array":
        assert column.items is not None
        return pa.list_(pa.field("item", arrow_type(column.items), column.items.nullable))
    if column.type == "struct":
        return pa.struct([pa.field(field.name, arrow_type(field), field.nullable) for field in column.fields])
    if (decimal := _DECIMAL.fullmatch(column.type)) is not None:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    return _SIMPLE[column.type]


def type_name(kind: pa.DataType) -> str:
    """An Arrow type as the pipeline file calls it; one that it has no name for in Arrow's words."""
    if pa.types.is_decimal128(kind):
        return f"decimal({kind.precision},{kind.scale})"
    return _NAMES.get(kind, str(kind))


def value_schema(pipeline: Pipeline) -> pa.Schema:
    """The decoded columns in the order of the file; the key's column comes last if `source.key.column` names one."""
    fields = [pa.field(column.name, arrow_type(column), column.nullable) for column in pipeline.schema_]
    if pipeline.source is not None and (key := pipeline.source.key).column is not None:
        fields.append(pa.field(key.column, pa.string() if key.format == "string" else pa.binary()))
    return pa.schema(fields)


@lru_cache(maxsize=1024)  # a producer that misspells a field does so in every record
def nearest_name(name: str, names: tuple[str, ...]) -> str | None:
    """The most similar of `names`, whatever the case, for "did you mean"; None when nothing is close."""
    lowered = {known.lower(): known for known in names}
    close = get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return lowered[close[0]] if close else None
