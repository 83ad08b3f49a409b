"""Types: the schema in Arrow."""

from __future__ import annotations

import pyarrow as pa

from tests.unit.stages.records import pipeline
from tidegate.stages.sql import literal, quote
from tidegate.stages.types import nearest_name, value_schema


def test_every_type_has_its_arrow_type() -> None:
    """The schema's types map to Arrow's; timestamps are naive UTC microseconds, nullability is kept."""
    columns = [
        {"name": "s", "type": "string", "nullable": False},
        {"name": "i", "type": "int"},
        {"name": "b", "type": "bigint"},
        {"name": "f", "type": "double"},
        {"name": "d", "type": "decimal(12, 3)"},
        {"name": "o", "type": "boolean"},
        {"name": "y", "type": "date"},
        {"name": "t", "type": "timestamp", "unit": "ms"},
        {"name": "a", "type": "array", "items": {"type": "int", "nullable": False}},
        {"name": "r", "type": "struct", "fields": [{"name": "x", "type": "array", "items": "string"}]},
    ]
    assert value_schema(pipeline(schema=columns)) == pa.schema(
        [
            pa.field("s", pa.string(), nullable=False),
            pa.field("i", pa.int32()),
            pa.field("b", pa.int64()),
            pa.field("f", pa.float64()),
            pa.field("d", pa.decimal128(12, 3)),
            pa.field("o", pa.bool_()),
            pa.field("y", pa.date32()),
            pa.field("t", pa.timestamp("us")),
            pa.field("a", pa.list_(pa.field("item", pa.int32(), nullable=False))),
            pa.field("r", pa.struct([pa.field("x", pa.list_(pa.field("item", pa.string())))])),
        ]
    )


def test_the_key_is_the_last_column() -> None:
    """A key column comes after those of the value: text or bytes."""
    for format_, type_ in (("string", pa.string()), ("bytes", pa.binary())):
        source = {"topics": ["t"], "key": {"column": "k", "format": format_}}
        schema = value_schema(pipeline(source=source, schema=[{"name": "x", "type": "int"}]))
        assert schema == pa.schema([pa.field("x", pa.int32()), pa.field("k", type_)])


def test_names_and_texts_are_quoted_for_sql() -> None:
    """Quotes inside a name or a text are doubled, so that neither can end early."""
    assert quote('a"b') == '"a""b"'
    assert literal("it's") == "'it''s'"


def test_the_nearest_name_ignores_case() -> None:
    """The most similar name is offered; nothing when none is close."""
    assert nearest_name("AMONT", ("amount", "count")) == "amount"
    assert nearest_name("zzz", ("amount",)) is None
