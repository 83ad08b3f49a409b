"""The headers with which a record goes back."""

from __future__ import annotations

import pytest

from dlq import headers as h
from dlq.original import Original
from dlq.replay.outgoing import replay_headers
from tidegate.record import TopicPartition


@pytest.mark.parametrize(
    ("timestamp", "first"),
    [(1_700_000_000_000, b"2023-11-14T22:13:20.000Z"), (-1, None), (1_700_000_000_000_000, None), (2**62, None)],
)
def test_a_first_failure_of_no_calendar_is_left_out(timestamp: int, first: bytes | None) -> None:
    """Another tool's dead letter that bears its time in microseconds, or none, goes back like any other."""
    original = Original.of(b"k", b"v", [], tp=TopicPartition("theirs.dlq", 0), offset=7, timestamp=timestamp)
    assert dict(replay_headers(original, "job/0/0", ())).get(h.FAILED_FIRST) == first
