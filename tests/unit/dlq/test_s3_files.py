"""Dead letters as files: everything that the envelope says, and the record of the topic byte for byte."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq import headers as h
from dlq.envelope import Envelope
from dlq.s3.buffer import Buffer
from dlq.s3.files import SCHEMA, Kept, decode, encode
from dlq.s3.naming import SUFFIXES, Cut, folder, object_name
from tests.unit.dlq.dead_letters import NOW_MS, envelope, letter
from tests.unit.dlq.dead_letters import written as as_written
from tidegate.config.queue import DeadLetterConfig
from tidegate.errors import ConfigError
from tidegate.record import TopicPartition

TP = TopicPartition("flights.dlq", 2)


def kept(offset: int, **fields: object) -> Kept:
    key, value, headers = as_written(letter(offset, **fields))
    return Kept(TP, offset, NOW_MS, key, value, headers)


def written(records: list[Kept], form: str) -> bytes:
    return encode([(one, one.envelope) for one in records], form)


_HEADERS = st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=20)), max_size=5)
_RECORDS = st.builds(
    Kept, st.just(TP), st.integers(0, 2**63 - 1), st.integers(-1, 2**53), st.none() | st.binary(max_size=50),
    st.none() | st.binary(max_size=50), _HEADERS,
)  # fmt: skip
_HOSTILE = Kept(
    TP, 7, -1, b"\xff", None,
    [(h.ATTEMPT, b"9" * 40), (h.ORIGIN_PARTITION, b"-" + b"9" * 30), (h.CONTEXT, b"{"), ("x\u2028y", b"a\nb"), ("n", None)],
)  # fmt: skip


@pytest.mark.parametrize("form", SUFFIXES)
@given(records=st.lists(_RECORDS, max_size=4))
def test_what_is_read_is_what_was_written(form: str, records: list[Kept]) -> None:
    """Key, value, headers, place and time of any record come back byte for byte."""
    records = [*records, kept(3), _HOSTILE]
    assert list(decode(written(records, form), f"x{SUFFIXES[form]}")) == records


@pytest.mark.parametrize("form", SUFFIXES)
def test_a_repeat_gives_the_same_bytes(form: str) -> None:
    """The same dead letters written again are the same file."""
    assert written([kept(1), _HOSTILE], form) == written([kept(1), _HOSTILE], form)


def test_columns_have_the_envelope() -> None:
    """Every field of the envelope is a column of the Parquet file, raw bytes as bytes."""
    table = pq.read_table(io.BytesIO(written([kept(1, value=b"\xff\x00")], "parquet")))
    row, whole = table.to_pylist()[0], kept(1, value=b"\xff\x00").envelope
    assert table.schema.equals(SCHEMA)
    plain = {name for name in Envelope.__struct_fields__ if name in row} - {"reasons", "truncated", "headers"}
    named = {"first_failure", "last_failure"}
    assert {name: row[name] for name in plain - named} == {name: getattr(whole, name) for name in plain - named}
    assert {name for name in Envelope.__struct_fields__ if name not in row} == {"origin"}
    assert (row["origin_topic"], row["origin_offset"], row["value"]) == ("flights", 1, b"\xff\x00")
    assert int(row["last_failure"].timestamp() * 1000) == NOW_MS
    assert row["reasons"][0] == {"error_type": "WrongType", "message": whole.message, "rule": None, "field": "dep_time",
                                 "found": "x"}  # fmt: skip


def test_lines_are_documents() -> None:
    """A line of JSON is the dead letter's full document."""
    line = json.loads(written([kept(1)], "json"))
    assert (line["id"], line["stage"], line["deadLetter"]["offset"]) == ("flights-1-1", "decode", 1)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"{}", b'{"deadLetter": 1}', b"\xff"])
@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl"])
def test_other_files_are_named(name: str, data: bytes) -> None:
    """A file that somebody else wrote is refused by its name."""
    if (name, data) != ("x.jsonl", b""):
        with pytest.raises(ConfigError, match=name):
            list(decode(data, name))


def test_the_name_of_an_object() -> None:
    """It says when and where the records failed and which they are; nothing in a header can lead out of its folder."""
    place = folder(envelope(1), "a/b/", by_stage=True)
    assert place == "a/b/date=2023-11-14/hour=22/pipeline=flights/stage=decode"
    name = object_name(folder(envelope(1), "", by_stage=False), Cut(TP, 4, 99), "json")
    assert name == (
        "date=2023-11-14/hour=22/pipeline=flights/flights.dlq-00002-00000000000000000004-00000000000000000099.jsonl"
    )
    hostile = Kept(
        TP, 1, 0, None, None, [(h.ID, b"x"), (h.PIPELINE, b"../.."), (h.FAILED_LAST, b"9999-12-31T23:59:59Z")]
    )
    assert folder(hostile.envelope, "p", by_stage=False) == "p/date=9999-12-31/hour=23/pipeline=..%2F.."


def test_what_is_due() -> None:
    """A buffer is due when it has enough records or bytes, or its first is old enough; a cut that was agreed on only when
    all of it is there, and then exactly that is written."""
    config = DeadLetterConfig(buffer_records=3, buffer_bytes=1024, buffer_age=10_000)
    buffer = Buffer(TP)
    assert buffer.due(config) == float("inf")
    buffer.add(kept(1)._replace(headers=[]), 5.0)
    assert buffer.due(config) == 15.0
    buffer.add(kept(2)._replace(headers=[], value=b"x" * 1024), 6.0)
    assert buffer.due(config) == 0.0
    agreed = Buffer(TP, upto=4)
    for offset in (1, 2, 3):
        agreed.add(kept(offset), 5.0)
    assert agreed.due(config) == 15.0
    agreed.add(kept(4), 5.0)
    agreed.add(kept(5), 5.0)
    assert agreed.due(config) == 0.0
    cut, records = agreed.cut()
    assert (cut, [one.offset for one in records]) == (Cut(TP, 1, 4), [1, 2, 3, 4])
    agreed.drop(cut, 7.0)
    assert (agreed.due(config), agreed.committed, agreed.cut()[0]) == (17.0, 5, Cut(TP, 5, 5))
