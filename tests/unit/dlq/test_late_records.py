"""Late records go where the pipeline's strategy says, with the windows that miss them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from dlq import headers as h
from dlq.late import late_records
from tests.unit.dlq.dead_letters import SOURCE, batch, plan, result, told, written
from tidegate.clock import ManualClock
from tidegate.stages.batch import LateRecord, MissedWindow

MISSED = (MissedWindow("per_hour", 0, 3_600_000), MissedWindow("per_day", 0, 86_400_000))
LATE = [LateRecord(2, 100, 90_000_000, MISSED), LateRecord(5, 200, 90_000_001, MISSED[:1], partial=True)]


def late(strategy: str, *, headers: Any = None, records: list[LateRecord] = LATE, partitions: int = 3) -> Any:
    raw = batch([1, 2, 5], headers=headers)
    config = plan(lateData={"strategy": strategy}, eventTime={"column": "at", "delay": "1 minute"})
    return late_records(result(raw, late=records), config, ManualClock(50.0), partitions=partitions)


def test_separate_stream() -> None:
    """separateStream gives rows for the late topic: the record as it was, event time, watermark and missed windows."""
    rows, letters = late("separateStream", headers=[("own", b"1")])
    assert letters == []
    assert [(row.topic, row.partition, row.key, row.value, row.timestamp) for row in rows] == [
        ("flights.late", 1, b"k2", b"v2", 50_000),
        ("flights.late", 1, b"k5", b"v5", 50_000),
    ]
    assert rows[0].headers[0] == ("own", b"1")
    headers = dict(rows[0].headers)
    assert headers[h.LATE_ID] == b"flights-1-2"
    assert (headers[h.LATE_EVENT_TIME], headers[h.LATE_WATERMARK]) == (b"100", b"90000000")
    assert headers[h.LATE_TIMESTAMP] == b"20"
    assert (headers[h.LATE_PARTIAL], headers[h.LATE_WINDOWS_COUNT]) == (b"false", b"2")
    assert json.loads(headers[h.LATE_WINDOWS]) == [
        {"aggregation": "per_hour", "start": 0, "end": 3_600_000},
        {"aggregation": "per_day", "start": 0, "end": 86_400_000},
    ]


def test_partial_records_have_an_id_of_their_own() -> None:
    """A record that is late for some of its windows is marked, and its id is not the one of its place in the ledger."""
    rows, _ = late("separateStream")
    headers = dict(rows[1].headers)
    assert headers[h.LATE_PARTIAL] == b"true"
    assert headers[h.LATE_ID] == b"flights-1-5-event_time"


def test_old_late_headers_are_replaced() -> None:
    """A record that comes from a late topic and is late again carries one set of late headers."""
    rows, _ = late("separateStream", headers=[(h.LATE_ID, b"old"), ("own", b"1")])
    names = [name for name, _ in rows[0].headers]
    assert len(names) == len(set(names))
    assert dict(rows[0].headers)[h.LATE_ID] == b"flights-1-2"


def test_send_to_dlq() -> None:
    """sendToDLQ gives dead letters of stage event_time and type LateRecord that tell watermark and windows."""
    rows, letters = late("sendToDLQ")
    assert rows == []
    first, partial = map(told, letters)
    assert (first.id, first.stage, first.error_type, first.value) == ("flights-1-2", "event_time", "LateRecord", b"v2")
    assert "is 89999900 ms behind the watermark" in first.message
    assert first.reasons[0].field == "at"
    assert first.context["windows"][0] == {"aggregation": "per_hour", "start": 0, "end": 3_600_000}
    assert (partial.id, partial.context["partial"]) == ("flights-1-5-event_time", True)
    assert first.fingerprint == partial.fingerprint


def test_log_and_drop() -> None:
    """logAndDrop writes one log event for the whole batch, with counts and offsets, and no record."""
    with capture_logs() as logs:
        rows, letters = late("logAndDrop")
    assert (rows, letters) == ([], [])
    assert logs == [
        {
            "event": "late.dropped",
            "log_level": "warning",
            "pipeline": "flights",
            "topic": "flights",
            "partition": SOURCE.partition,
            "records": 1,
            "partial": 1,
            "first_offset": 2,
            "last_offset": 5,
            "latest_by_ms": 89_999_900,
        }
    ]


def test_drop() -> None:
    """drop writes nothing, not even to the log: the late table counts."""
    with capture_logs() as logs:
        assert late("drop") == ([], [])
    assert logs == []


@pytest.mark.parametrize("strategy", ["drop", "logAndDrop", "sendToDLQ", "separateStream"])
def test_nothing_late(strategy: str) -> None:
    """A batch without late records writes nothing, whatever the strategy."""
    with capture_logs() as logs:
        assert late(strategy, records=[]) == ([], [])
    assert logs == []


def test_a_record_that_misses_very_many_windows() -> None:
    """Of 10 000 missed windows the first 32 are listed and the number of all is told, so that the record still fits."""
    many = tuple(MissedWindow("per_second", i * 1000, i * 1000 + 86_400_000) for i in range(10_000))
    rows, _ = late("separateStream", records=[LateRecord(2, 0, 10**9, many)])
    headers = dict(rows[0].headers)
    assert len(json.loads(headers[h.LATE_WINDOWS])) == 32
    assert headers[h.LATE_WINDOWS_COUNT] == b"10000"
    _, letters = late("sendToDLQ", records=[LateRecord(2, 0, 10**9, many)])
    headers = dict(written(letters[0]).headers)
    assert sum(len(value or b"") for value in headers.values()) < 8192
