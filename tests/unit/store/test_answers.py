"""A batch's answers as bytes: all of it comes back, and what was damaged says so."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from tidegate.errors import TidegateError
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import Answers, Reason, Rejection
from tidegate.store.answers import decode_answers, encode_answers

TP = TopicPartition("flights", 3)
SCHEMA = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("price", pa.decimal128(38, 2)),
        pa.field("at", pa.timestamp("us")),
        pa.field("day", pa.date32()),
        pa.field("digest", pa.binary()),
        pa.field("tags", pa.list_(pa.struct([pa.field("name", pa.string())]))),
        pa.field("_offset", pa.int64()),
    ]
)
ROWS = pa.Table.from_pylist(
    [
        {
            "text": "Zürich ✈",
            "price": Decimal("-0.10"),
            "at": datetime(2013, 1, 1, 5, 6, 7, 8),  # noqa: DTZ001 (naive, always UTC)
            "day": date(1969, 12, 31),
            "digest": b"\x00\xff",
            "tags": [{"name": None}],
            "_offset": 5,
        },
        {"text": "", "_offset": 9},
    ],
    SCHEMA,
)
REFUSED = Rejection(6, Stage.HANDLE, (Reason("ValueError", "no", None, "text", "'x'"), Reason("E", "two")), "stack", 3)
ANSWERS = Answers(4, 9, ROWS, {7: Rejection(7, Stage.SINK, (Reason("SinkRefused", "no"),)), 6: REFUSED}, np.array([8]))


def shown(answers: Answers) -> tuple[object, ...]:
    return answers.after, answers.upto, answers.rows, dict(answers.rejected), answers.filtered.tolist()


@pytest.mark.parametrize(
    "answers",
    [
        ANSWERS,
        Answers(-1, 0),
        Answers(-1, 0, ROWS.slice(0, 0)),
        Answers(4, 9, pa.concat_tables([ROWS.slice(0, 1), ROWS.slice(1)])),
        Answers(4, 9, rejected={6: REFUSED}),
    ],
    ids=["everything", "nothing", "no rows", "in chunks", "no handlers"],
)
def test_what_was_encoded_comes_back(answers: Answers) -> None:
    """The stretch, every column with its type, every rejection with all reasons, and what was left out."""
    found = decode_answers(encode_answers(answers), TP)
    assert shown(found) == shown(answers)
    assert answers.rows is None or found.rows.schema == answers.rows.schema


def test_any_damage_is_an_error() -> None:
    """Whatever byte is changed, and wherever the bytes are cut off: an error that names the partition and the way out."""
    data = encode_answers(ANSWERS)
    damaged = [data[:size] for size in range(len(data))]
    damaged += [data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :] for at in range(len(data))]
    for one in [*damaged, data + b"x"]:
        with pytest.raises(TidegateError, match=r"last batch of flights-3 cannot be read: (.|\n)*hint: "):
            decode_answers(one, TP)


def test_answers_of_another_version_are_an_error() -> None:
    """A version that this one does not know is named, before anything is guessed from its bytes."""
    data = bytes([1]) + encode_answers(ANSWERS)[1:]
    with pytest.raises(TidegateError, match="version 1, where this tidegate knows 2"):
        decode_answers(data, TP)


def test_rows_of_a_handler_are_compressed() -> None:
    """Text that repeats takes a fraction of its size."""
    rows = pa.table({"text": ["a long text that comes again and again"] * 1000, "_offset": range(1000)})
    assert len(encode_answers(Answers(-1, 999, rows))) < rows.nbytes / 3
