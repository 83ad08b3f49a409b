"""A fingerprint is the same for the same failure of different records, and another for another failure."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlq.fingerprint import fingerprint, normalise

VALUES = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False).map(repr),
    st.uuids().map(str),
    st.binary(min_size=4, max_size=8).map(lambda data: "0x" + data.hex()),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.text(st.characters(codec="utf-8"), max_size=60).map(json.dumps),
    st.text(st.characters(categories=["L", "N", "Z"]), max_size=60).map(repr),
    st.sampled_from(["true", "false", "null", "None"]),
    st.dictionaries(st.text("abc", max_size=3), st.integers(), max_size=3).map(json.dumps),
    st.lists(st.integers(), max_size=5).map(json.dumps),
)


@pytest.mark.slow
@settings(deadline=None)  # the first example pays for imports
@given(one=VALUES, other=VALUES)
@pytest.mark.parametrize("message", ["expected bigint, found {}", "{} is not allowed in carrier", "a {} b"])
def test_values_do_not_count(message: str, one: str, other: str) -> None:
    """Two records that fail in the same way with different values have the same fingerprint."""
    failures = [fingerprint("decode", "WrongType", None, "delay", message.format(value)) for value in (one, other)]
    assert failures[0] == failures[1]


@pytest.mark.parametrize(
    ("message", "normal"),
    [
        ("offset 42 of flights-1", "offset ? of ?"),
        ("can't parse 'O'Brien' as a date", "can't parse ? as a date"),
        (f"user {UUID(int=7)} at 2013-01-01T05:15:00Z from 10.0.0.1:9092", "user ? at ? from ?"),
        ("hash deadbeefcafe is not feedfacedead", "hash ? is not ?"),
        ('found {"a": 1, "b": [2]} in the record', "found ? in the record"),
        ('found "a value that was cut …', "found ?"),
        (r'found "she said \"no\"" here', "found ? here"),
        ("12 3 4, 5", "?"),
        ("no variable part", "no variable part"),
    ],
)
def test_normal_forms(message: str, normal: str) -> None:
    """Numbers, quoted values, UUIDs, hexadecimal, timestamps, addresses and JSON become a question mark."""
    assert normalise(message) == normal


@pytest.mark.parametrize(
    "other",
    [
        ("validate", "WrongType", None, "delay", "expected bigint, found 1"),
        ("decode", "Overflow", None, "delay", "expected bigint, found 1"),
        ("decode", "WrongType", "rule", "delay", "expected bigint, found 1"),
        ("decode", "WrongType", None, "carrier", "expected bigint, found 1"),
        ("decode", "WrongType", None, "delay", "expected double, found 1"),
    ],
)
def test_different_failures_differ(other: tuple[str, str, str | None, str, str]) -> None:
    """Another stage, error type, rule, field or message is another failure."""
    assert fingerprint("decode", "WrongType", None, "delay", "expected bigint, found 1") != fingerprint(*other)


def test_array_indices_do_not_count() -> None:
    """The same field in another item of an array is the same failure."""
    message = "expected double, found x"
    assert fingerprint("decode", "WrongType", None, "items[3].price", message) == fingerprint(
        "decode", "WrongType", None, "items[17].price", message
    )


def test_fingerprints_never_change() -> None:
    """A fingerprint written by this version is found by every later one."""
    assert fingerprint("decode", "WrongType", None, "delay", "expected bigint, found 1") == "598c6b6eddcf"


@pytest.mark.parametrize("piece", ["'", '"', "{", "[", "1", "a1:", "-", "'a", "? "])
def test_hostile_messages_take_no_time(piece: str) -> None:
    """A message made to make matching slow is normalised as fast as any other (the test would not end otherwise)."""
    assert len(normalise(piece * 100_000)) <= 1000
