"""What waits in a retry topic, and what goes back: the record byte for byte, with what it has behind it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dlq.dialects import last_values
from dlq.letter import Letter, RawRecord
from dlq.retry.rows import going_back, retry_rows, waiting
from tests.unit.dlq.dead_letters import SOURCE, batch, kinds, plan, rejection, told
from tidegate.clock import ManualClock
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import BatchResult, Deferral, PartitionState

PLAN = plan(errorHandling={"retryTopics": {"delays": ["10 seconds", "90 seconds"]}})
COUNTS = {"flights..retry.10s": 3, "flights..retry.90s": 3}


def row(rung: int, headers: Any = None, offset: int = 7) -> Any:
    raw, state = batch([offset], headers=headers), PartitionState()
    refused = rejection(offset, "not yet", stage=Stage.HANDLE)
    result = BatchResult(raw, state, state, pa.table({}), deferred=[Deferral(refused, rung, rung + 1)])
    clock = ManualClock()
    (made,) = retry_rows(result, PLAN, clock, COUNTS)
    return made, int(clock.time() * 1000)


def given(headers: Any) -> Any:
    return [{"key": name, "value": value} for name, value in headers]


def test_there_and_back_and_a_dead_letter() -> None:
    """The record waits with its key, value and headers; it goes back knowing its first place, its first failure and the
    number of the attempt; in the end its dead letter says how often it was tried, and carries nothing of the waiting."""
    first, now = row(0, given([("own", b"\xff")]))
    assert (first.topic, first.partition, first.key, first.value) == ("flights..retry.10s", 1, b"k7", b"v7")
    assert waiting(first.headers) == (now + 10_000, SOURCE)
    back = going_back(first.headers)
    values = last_values(back)
    assert values["tidegate.retry.of"] == b"flights-1-7"
    assert values["tidegate.retry.attempt"] == b"1"
    assert ("own", b"\xff") in back
    assert waiting(back) is None
    assert not {"tidegate.dlq.error.message", "tidegate.dlq.stage"} & set(values)

    second, now = row(1, given(back), offset=99)
    assert (second.topic, waiting(second.headers)) == ("flights..retry.90s", (now + 90_000, SOURCE))
    back = going_back(second.headers)
    assert last_values(back)["tidegate.retry.of"] == b"flights-1-7"
    assert len(back) == len(values)

    record = RawRecord(SOURCE, 120, 5, b"k", b"v", tuple(back))
    letter = Letter.of(rejection(120, stage=Stage.HANDLE), record, kinds(now))
    assert (letter.id, told(letter).origin[:3], letter.kind.attempt) == ("flights-1-120", ("flights", 1, 7), 3)
    assert letter.headers == (("own", b"\xff"),)


def test_not_ours() -> None:
    """A record without what a retry needs says nothing."""
    for headers in (
        [],
        [("tidegate.retry.due", b"soon")],
        [("tidegate.retry.due", b"5"), ("tidegate.retry.topic", b"t")],
    ):
        assert waiting(headers) is None
    assert waiting(
        [("tidegate.retry.due", b"5"), ("tidegate.retry.topic", b"t"), ("tidegate.retry.partition", b"2")]
    ) == (
        5,
        TopicPartition("t", 2),
    )
