"""Decode: bytes to typed columns."""

# ruff: noqa: DTZ001 - timestamps in rows are naive, and UTC

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.corpus.records import PIPELINE
from tests.unit.stages.records import pipeline, raw
from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError
from tidegate.stages.decode import Decoder
from tidegate.stages.decode.moments import MAX_MICROS, MIN_MICROS
from tidegate.stages.decode.shown import shown

CORPUS = Pipeline.model_validate({**PIPELINE, "rules": []})
EVERYTHING = Decoder(CORPUS)


def decode_one(column: dict[str, Any], text: str) -> Any:
    """The value of one column `x` decoded from a record {"x": text}; a Reason's error type if it was refused."""
    decoded = Decoder(pipeline(schema=[{"name": "x", **column}])).decode(raw([b'{"x": %s}' % text.encode()]))
    return decoded.rejected[0].reasons[0].error_type if decoded.rejected else decoded.rows.column("x")[0].as_py()


def test_rows_have_the_columns_of_the_schema_and_what_travels_beside() -> None:
    """Decoded rows have the schema's columns, then offset, timestamp in ms and lane."""
    decoded = Decoder(pipeline(schema=[{"name": "x", "type": "int"}])).decode(raw([b'{"x": 1}', b'{"x": null}', b"{}"]))
    assert decoded.rows.to_pydict() == {
        "x": [1, None, None],
        "_offset": [100, 101, 102],
        "_timestamp": [1_000_100, 1_000_101, 1_000_102],
        "_lane": ["live", "live", "live"],
    }
    assert decoded.rows.schema.types == [pa.int32(), pa.int64(), pa.int64(), pa.string()]


def test_an_empty_batch_gives_no_rows_of_the_right_types() -> None:
    """A batch without records decodes to an empty table with every column."""
    decoded = EVERYTHING.decode(raw([]))
    assert len(decoded.rows) == 0
    assert decoded.rows.schema.names[: len(EVERYTHING.schema)] == EVERYTHING.schema.names


def test_tombstones_are_skipped_and_counted_by_default() -> None:
    """A null value is neither a row nor a rejection, but it is counted."""
    decoded = Decoder(pipeline(schema=[{"name": "x", "type": "int"}])).decode(raw([None, b'{"x": 1}', None]))
    assert (len(decoded.rows), decoded.rejected, decoded.skipped) == (1, [], 2)


def test_a_record_keeps_all_its_faults() -> None:
    """Every field that is wrong is named, in the schema's order."""
    columns = [
        {"name": "a", "type": "int", "nullable": False},
        {"name": "b", "type": "string"},
        {"name": "c", "type": "date"},
    ]
    decoded = Decoder(pipeline(schema=columns)).decode(raw([b'{"b": 1, "c": "x"}']))
    [rejection] = decoded.rejected
    assert [(r.error_type, r.field) for r in rejection.reasons] == [
        ("MissingField", "a"),
        ("WrongType", "b"),
        ("InvalidDate", "c"),
    ]


def test_a_missing_field_names_the_one_that_looks_like_it() -> None:
    """A misspelt field is hinted at in the reason."""
    decoder = Decoder(pipeline(schema=[{"name": "amount", "type": "int", "nullable": False}]))
    [rejection] = decoder.decode(raw([b'{"amuont": 1}'])).rejected
    assert "'amuont'" in rejection.reasons[0].message


def test_what_was_found_is_short_and_printable() -> None:
    """At most 120 printable characters are shown."""
    decoder = Decoder(pipeline(schema=[{"name": "x", "type": "int"}]))
    value = json.dumps({"x": "\u0007" + "é" * 500}, ensure_ascii=False).encode()
    found = decoder.decode(raw([value])).rejected[0].reasons[0].found
    assert found is not None
    assert len(found) == 120
    assert found.isprintable()


def test_unknown_fields_are_ignored_by_default() -> None:
    """Without `additionalFields: reject` a field that the schema does not name is passed over."""
    decoded = Decoder(pipeline(schema=[{"name": "x", "type": "int"}])).decode(raw([b'{"x": 1, "y": [{}]}']))
    assert decoded.rows.column("x").to_pylist() == [1]


def test_of_a_name_that_comes_twice_the_last_wins() -> None:
    """Duplicate names in an object: the last value counts."""
    assert decode_one({"type": "int"}, '1, "x": 2') == 2


def test_the_key_can_be_a_column() -> None:
    """The record's key becomes a string column, null without key."""
    decoder = Decoder(pipeline(source={"topics": ["t"], "key": {"column": "k"}}, schema=[{"name": "x", "type": "int"}]))
    decoded = decoder.decode(raw([b"{}", b"{}"], keys=["é".encode(), None]))
    assert decoded.rows.column("k").to_pylist() == ["é", None]


def test_a_key_of_bytes_is_kept_as_it_is() -> None:
    """With `format: bytes` the key need not be text."""
    source = {"topics": ["t"], "key": {"column": "k", "format": "bytes"}}
    decoded = Decoder(pipeline(source=source, schema=[{"name": "x", "type": "int"}])).decode(
        raw([b"{}"], keys=[b"\xff"])
    )
    assert decoded.rows.column("k").to_pylist() == [b"\xff"]


@pytest.mark.parametrize("header", ["tidegate.replay.of", "tidegate.retry.of"])
def test_a_record_on_its_second_way_has_the_replay_lane(header: str) -> None:
    """The replay and retry headers put a record on the replay lane; other headers do not."""
    decoder = Decoder(pipeline(schema=[{"name": "x", "type": "int"}]))
    headers = [None, [("trace", b"1"), (header, b"t-0-1")], [("trace", b"1")], []]
    decoded = decoder.decode(raw([b"{}"] * 4, headers=headers))
    assert decoded.rows.column("_lane").to_pylist() == ["live", "replay", "live", "live"]


def test_lanes_stay_with_their_records_when_others_are_refused() -> None:
    """A refused record and a tombstone before it do not shift a record's lane, offset or key."""
    decoder = Decoder(pipeline(source={"topics": ["t"], "key": {"column": "k"}}, schema=[{"name": "x", "type": "int"}]))
    headers = [None, None, [("tidegate.retry.of", b"")], None]
    decoded = decoder.decode(raw([None, b"x", b"{}", b"{}"], keys=[b"0", b"1", b"2", b"3"], headers=headers))
    assert decoded.rows.select(["k", "_offset", "_lane"]).to_pylist() == [
        {"k": "2", "_offset": 102, "_lane": "replay"},
        {"k": "3", "_offset": 103, "_lane": "live"},
    ]


def test_the_key_travels_to_handlers_that_run_records_at_once() -> None:
    """A handler with concurrency gets the raw key beside the rows; other pipelines do not pay for it."""
    handlers = [{"call": "m:f", "concurrency": 2}]
    decoder = Decoder(pipeline(schema=[{"name": "x", "type": "int"}], handlers=handlers))
    assert decoder.decode(raw([b"{}"], keys=[b"k"])).rows.column("_key").to_pylist() == [b"k"]


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ({"type": "double"}, "1", 1.0),
        ({"type": "double"}, "1e-400", 0.0),
        ({"type": "int"}, "-2147483648", -(2**31)),
        ({"type": "bigint"}, "9223372036854775807", 2**63 - 1),
        ({"type": "bigint"}, "-9223372036854775808", -(2**63)),
        ({"type": "decimal(10,2)"}, "1.500", Decimal("1.50")),
        ({"type": "decimal(10,2)"}, "1e2", Decimal("100.00")),
        ({"type": "decimal(10,2)"}, "-0.01", Decimal("-0.01")),
        ({"type": "decimal(38,0)"}, "9" * 38, Decimal("9" * 38)),
        ({"type": "decimal(38,0)", "nullable": False}, "null", "NullField"),
        ({"type": "string"}, r'"\u0000\ud83d\ude00"', "\0😀"),
        ({"type": "timestamp", "unit": "s"}, "1.5", datetime(1970, 1, 1, 0, 0, 1, 500_000)),
        ({"type": "timestamp", "unit": "ns"}, "-1", datetime(1969, 12, 31, 23, 59, 59, 999_999)),
        ({"type": "timestamp", "unit": "us"}, "1e400", "InvalidTimestamp"),
        ({"type": "timestamp", "unit": "s"}, "1e303", "InvalidTimestamp"),
        ({"type": "timestamp", "unit": "s"}, "99999999999999999999", "InvalidTimestamp"),
        ({"type": "timestamp", "format": "iso8601"}, '"2024-02-29"', datetime(2024, 2, 29)),
        ({"type": "timestamp", "format": "iso8601"}, '"2024-01-01T00:30:00+01:00"', datetime(2023, 12, 31, 23, 30)),
        ({"type": "timestamp", "format": "iso8601"}, '"20240101T000000.000001999Z"', datetime(2024, 1, 1, 0, 0, 0, 1)),
        ({"type": "timestamp", "format": "iso8601"}, '"2024-01-01x10:00"', "InvalidTimestamp"),
        ({"type": "timestamp", "format": "iso8601"}, '"0001-01-01T00:00:00+10:00"', "InvalidTimestamp"),
        ({"type": "timestamp", "format": "%d/%m/%Y %H:%M %z"}, '"02/01/2024 01:00 +0100"', datetime(2024, 1, 2)),
        ({"type": "array", "items": "int"}, "null", None),
        ({"type": "array", "items": {"type": "array", "items": "int"}}, "[[1], [], null]", [[1], [], None]),
        ({"type": "struct", "fields": [{"name": "a", "type": "int"}]}, '{"a": null}', {"a": None}),
    ],
)  # fmt: skip
def test_a_value_is_read_exactly(column: dict[str, Any], text: str, value: object) -> None:
    """Each type reads its whole range, exactly, and nothing beyond it."""
    assert decode_one(column, text) == value


def test_timestamps_in_mixed_forms_do_not_depend_on_their_neighbours() -> None:
    """With and without offset, in basic form and with nine digits: each is read as it would be alone."""
    texts = ["2024-01-01", "2024-01-01T00:00:00Z", "20240101T000000", "2024-01-01T01:00:00.000000001+01:00", "nonsense"]
    decoder = Decoder(pipeline(schema=[{"name": "x", "type": "timestamp", "format": "iso8601"}]))
    decoded = decoder.decode(raw([json.dumps({"x": text}).encode() for text in texts]))
    assert decoded.rows.column("x").to_pylist() == [datetime(2024, 1, 1)] * 4
    assert [one.offset for one in decoded.rejected] == [104]


def test_numbers_of_seconds_do_not_depend_on_fractions_beside_them() -> None:
    """A large integer keeps its last digit when another record in the batch has a fraction."""
    decoder = Decoder(pipeline(schema=[{"name": "x", "type": "timestamp", "unit": "us"}]))
    decoded = decoder.decode(raw([b'{"x": 200000000000000001}', b'{"x": 0.4}']))
    assert decoded.rows.column("x").cast(pa.int64()).to_pylist() == [200_000_000_000_000_001, 0]


def test_a_format_that_is_none_is_refused_when_the_pipeline_is_compiled() -> None:
    """A strptime format that DuckDB does not know is a configuration error that names its field."""
    with pytest.raises(ConfigError, match=r"schema\[0\]\.format"):
        Decoder(pipeline(schema=[{"name": "x", "type": "timestamp", "format": "%Q"}]))


_MOMENTS = st.integers(MIN_MICROS // 1000, MAX_MICROS // 1000)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_RECORDS = st.fixed_dictionaries(
    {"id": st.integers(-(2**63), 2**63 - 1), "name": _TEXT},
    optional={
        "count": st.none() | st.integers(-(2**31), 2**31 - 1),
        "ratio": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "price": st.none() | st.decimals(Decimal("-99999999.99"), Decimal("99999999.99"), places=2),
        "paid": st.none() | st.booleans(),
        "day": st.none() | st.dates(),
        "at": st.none() | _MOMENTS,
        "seen": st.none() | st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)),
        "tags": st.none() | st.lists(_TEXT),
        "address": st.none() | st.fixed_dictionaries({"city": _TEXT, "lines": st.none() | st.lists(st.none() | _TEXT)}),
    },
)


def _written(record: dict[str, Any]) -> bytes:
    """As JSON; a decimal is a number with all its digits."""
    texts = {name: value.isoformat() if isinstance(value, date) else value for name, value in record.items()}
    price = texts.pop("price", None)
    text = json.dumps(texts, ensure_ascii=False)
    return (text if price is None else f'{text[:-1]}, "price": {price:f}}}').encode()


@pytest.mark.slow
@given(st.lists(_RECORDS, max_size=5))
def test_valid_values_come_back_as_they_were_written(records: list[dict[str, Any]]) -> None:
    """Whatever the schema allows is decoded to the same value, and nothing is refused."""
    decoded = EVERYTHING.decode(raw([_written(record) for record in records]))
    assert decoded.rejected == []
    for row, record in zip(decoded.rows.to_pylist(), records, strict=True):
        for name, value in record.items():
            wanted = value
            if name == "at" and value is not None:
                wanted = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)).replace(tzinfo=None)
            if name == "address" and value is not None:
                wanted = {**value, "since": None, "fees": None}
            assert row[name] == wanted


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | _TEXT
_JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3))
_NAMES = [column.name for column in CORPUS.schema_]
_OBJECTS = st.dictionaries(st.sampled_from(_NAMES) | _TEXT, _JSON, max_size=6)


@pytest.mark.slow
@given(st.lists(st.none() | st.binary(max_size=40) | _OBJECTS.map(lambda o: json.dumps(o).encode()), max_size=6))
def test_decode_never_raises_and_accounts_for_every_record(values: list[bytes | None]) -> None:
    """For any bytes at all, each record is a row or a rejection with a reason, once."""
    decoded = EVERYTHING.decode(raw(values, first=0))
    rejected = [one.offset for one in decoded.rejected]
    assert sorted([*decoded.rows.column("_offset").to_pylist(), *rejected]) == list(range(len(values)))
    assert all(one.reasons for one in decoded.rejected)


@pytest.mark.slow
@given(_OBJECTS.map(lambda o: json.dumps({"id": 1, "name": "a", **o}).encode()))
def test_every_refusal_is_explained_by_a_field(value: bytes) -> None:
    """A well-formed object that is refused has a reason that names a field: the fast and the slow look agree."""
    for one in EVERYTHING.decode(raw([value])).rejected:
        assert all(reason.field is not None or reason.error_type == "MalformedJson" for reason in one.reasons)


@pytest.mark.parametrize("number", [0.1 + 0.2, -1e300, 5e-324, -0.0, float("nan"), float("-inf")])
def test_a_number_is_shown_with_all_its_digits(number: float) -> None:
    """What was found is what stood there, to the last digit."""
    assert shown(number) == repr(number)
