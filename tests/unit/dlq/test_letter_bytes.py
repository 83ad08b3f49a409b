"""What stands in a dead letter, byte for byte: other programs read it, and what was written years ago is still in topics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dlq import headers as h
from dlq.collect import dead_letters
from dlq.dialects import DIALECTS
from dlq.late import late_records
from dlq.publishers import open_publisher
from tests.unit.dlq.dead_letters import NOW_MS, SOURCE, plan
from tidegate.clock import ManualClock
from tidegate.record import OutRow, Stage
from tidegate.stages.batch import (
    RAW_SCHEMA,
    BatchResult,
    LateRecord,
    MissedWindow,
    PartitionState,
    RawBatch,
    Reason,
    Rejection,
)

GOLDEN = Path(__file__).parents[2] / "corpus" / "letters" / "golden.jsonl"
_FEW = (0, 8, 15, 19, 20)  # of the cases and the late records
_SHORT = 400  # bytes; of what is longer the file has size and digest

_LONG = tuple(Reason("R", "m" * 5_000, rule="r", field="f" * 5_000, found=f"x{number}") for number in range(20))
_RULE = ("RuleViolation", "expected 0 to 1000", "range(amount)", "amount")
_DEAD_BEFORE = [
    ("own", b"1"), (h.ID, b"other-2-7"), (h.ORIGIN_TOPIC, b"other"), (h.ORIGIN_PARTITION, b"2"), (h.ORIGIN_OFFSET, b"7"),
    (h.ORIGIN_TIMESTAMP, b"77"), (h.FAILED_FIRST, b"2020-01-02T03:04:05.678Z"), (h.REPLAYS, b"3"), (h.TRUNCATED, b"value"),
    (h.VALUE_SIZE, b"123456"), (h.VALUE_SHA256, b"00ff"), ("tidegate.replay.of", b"other-2-7"),
    ("__connect.errors.topic", b"other"), (h.TRACEPARENT, b"00-0af7-b7ad-01"),
]  # fmt: skip
_CASES: list[tuple[Rejection, dict[str, Any]]] = [
    (Rejection(0, Stage.VALIDATE, (Reason(*_RULE, "-1.0"),)), {}),
    (Rejection(1, Stage.VALIDATE, (Reason(*_RULE, "-2.5"),)), {}),
    (Rejection(2, Stage.VALIDATE, (Reason(*_RULE, None),)), {"key": None}),
    (Rejection(3, Stage.VALIDATE, (Reason(*_RULE, '"ü'), Reason("RuleViolation", "expected a value", "notNull(k)"))), {}),
    (Rejection(4, Stage.VALIDATE, (Reason("RuleViolation", "expected a value", "notNull(k)"), Reason(*_RULE, "0"))), {}),
    (Rejection(5, Stage.DECODE, (Reason("WrongType", "expected bigint", field="a[3].b", found="\udcff\x00é"),)), {}),
    (Rejection(6, Stage.DECODE, (Reason("Wröng", "bad \ud800", "rü", "f\udcff", None),)), {"value": b"\xff\x00"}),
    (Rejection(7, Stage.DECODE, (Reason("Tombstone", "the value is null"),)), {"key": None, "value": None}),
    (Rejection(8, Stage.HANDLE, (Reason("ValueError", "no"),), stack="at \udcff\nValueError: no", attempt=4), {}),
    (Rejection(9, Stage.HANDLE, (Reason("ValueError", "no"),), stack="é" * 20_000), {}),
    (Rejection(10, Stage.HANDLE, (Reason("ValueError", "no"),), attempt=2), {}),
    (Rejection(11, Stage.AGGREGATE, (Reason("ExpressionError", "Ünlesbar " * 900),)), {}),
    (Rejection(12, Stage.SINK, _LONG), {"key": b"k" * 40_000, "value": b"v" * 2_000}),
    (Rejection(13, Stage.VALIDATE, (Reason(*_RULE, "-1.0"),)), {"headers": [("a", b"\xff"), ("a", None), ("ü", b"")]}),
    (Rejection(14, Stage.VALIDATE, (Reason(*_RULE, "-1.0"),)), {"headers": [(h.TRACEPARENT, b"00-0af7-b7ad-01")]}),
    (Rejection(15, Stage.VALIDATE, (Reason(*_RULE, "-1.0"),)), {"headers": _DEAD_BEFORE}),
    (Rejection(16, Stage.VALIDATE, (Reason(*_RULE, "-1.0"),)), {"headers": [*_DEAD_BEFORE, (h.FAILED_FIRST, None)]}),
    (Rejection(17, Stage.HANDLE, (Reason("ValueError", "no"),)), {"headers": [("tidegate.retry.attempt", b"2")]}),
    (Rejection(18, Stage.HANDLE, (Reason("ValueError", "no"),)), {"headers": [(f"h{n}", b"x" * 99) for n in range(999)]}),
    (Rejection(19, Stage.VALIDATE, (Reason(*_RULE, "-1.0"),)), {"timestamp": -1}),
]  # fmt: skip
_LATE = [
    LateRecord(0, 5_000, 65_000, (MissedWindow("per_minute", 0, 60_000),)),
    LateRecord(13, 6_000, 66_000, tuple(MissedWindow("per_minute", n, n + 60_000) for n in range(40)), partial=True),
]


def written(dialect: str, timestamp_type: str | None, *, packed: bool) -> Iterator[OutRow]:
    """The rows of one batch in which each case fails, and of one with late records."""
    rows = [
        {"offset": n, "timestamp": 1_000 + n, "key": b"k%d" % n, "value": b"v%d" % n, "headers": None, **changed}
        for n, (_, changed) in enumerate(_CASES)
    ]
    raw, state = RawBatch(SOURCE, pa.RecordBatch.from_pylist(_named(rows), schema=RAW_SCHEMA)), PartitionState()
    result = BatchResult(raw, state, state, pa.table({}), rejected=[rejection for rejection, _ in _CASES], late=_LATE)
    config = {"topic": "flights.dlq", "dialect": dialect, "maxValueBytes": 1_000, "maxStackBytes": 500}
    pipeline = plan(
        errorHandling={"deadLetterQueue": {"type": "kafka", "config": config}}, lateData={"strategy": "sendToDLQ"}
    )
    clock, context = ManualClock(NOW_MS / 1000), {"engine": "worker", "host": "h1"}
    dead = dead_letters(result, pipeline, clock, context=context, timestamp_type=timestamp_type)
    late = late_records(result, pipeline, clock, partitions=1)
    yield from open_publisher(pipeline, packed=packed).rows([*dead, *late.letters], SOURCE, 3)


def _named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**row, "headers": row["headers"] and [{"key": key, "value": value} for key, value in row["headers"]]}
        for row in rows
    ]


def shown(row: OutRow) -> dict[str, Any]:
    """A row as the file has it."""
    headers = [[name, _text(value)] for name, value in row.headers]
    if len(headers) > 100:
        headers = [*headers[:2], [f"… {len(headers)}", _text(json.dumps(headers).encode())]]
    place = [row.topic, row.partition, row.timestamp]
    return {"place": place, "key": _text(row.key), "value": _text(row.value), "headers": headers}


def _text(data: bytes | None) -> str | None:
    if data is None or len(data) <= _SHORT:
        return None if data is None else data.decode("latin-1")
    return f"{len(data)} bytes, SHA-256 {sha256(data).hexdigest()}"


def all_shown(*, packed: bool) -> Iterator[dict[str, Any]]:
    """Each letter as the default has it, and a few in every dialect, without the type of the topic's timestamps, too."""
    yield from map(shown, written("connect", "LogAppendTime", packed=packed))
    for dialect in sorted(DIALECTS):
        rows = list(written(dialect, None, packed=packed))
        yield from (shown(rows[number]) for number in _FEW)


@pytest.mark.parametrize("packed", [False, True], ids=["as clients take them", "as Kafka has them"])
def test_letters_are_what_they_were(packed: bool) -> None:
    """Key, value and headers of letters of every kind are what the file has, which was written on 2026-11-26."""
    golden = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    for number, (found, wanted) in enumerate(zip(all_shown(packed=packed), golden, strict=True)):
        assert found == wanted, f"line {number + 1} of {GOLDEN.name}"
