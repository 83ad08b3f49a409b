"""The headers with which a record goes back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from dlq import headers as h
from dlq.original import Original
from dlq.replay.names import INVALID
from dlq.replay.outgoing import ByHand, Preparer, replay_headers
from dlq.replay.raw import Chosen
from dlq.replay.targets import Targets
from tidegate.record import TopicPartition


@pytest.mark.parametrize(
    ("timestamp", "first"),
    [(1_700_000_000_000, b"2023-11-14T22:13:20.000Z"), (-1, None), (1_700_000_000_000_000, None), (2**62, None)],
)
def test_a_first_failure_of_no_calendar_is_left_out(timestamp: int, first: bytes | None) -> None:
    """Another tool's dead letter that bears its time in microseconds, or none, goes back like any other."""
    original = Original.of(b"k", b"v", [], tp=TopicPartition("theirs.dlq", 0), offset=7, timestamp=timestamp)
    assert dict(replay_headers(original, b"job/0", b"t/0/0", ())).get(h.FAILED_FIRST) == first


@pytest.mark.parametrize("large", ["key", "header", "name"])
def test_a_record_that_is_too_large_by_what_is_not_its_value_is_not_sent(large: str) -> None:
    """By a key that somebody has set, or by headers of another tool, which has no limits of ours: the client refuses it, and the
    job would try for ever."""
    much = "x" * 1_000_000
    headers = [(much if large == "name" else "own", much.encode() if large == "header" else b"1")]
    original = Original.of(b"k", b"v", headers, tp=TopicPartition("theirs.dlq", 0), offset=7, timestamp=1)
    targets = SimpleNamespace(max_bytes=1_000_000, place=lambda *_, **__: TopicPartition("flights", 0))
    hand = ByHand({1: (much.encode() if large == "key" else b"k", b"v")})
    preparer = Preparer(cast(Targets, targets), 5, job="job", mend=None, by_hand=hand)
    sent, ((_, outcome, detail),) = preparer.prepare([Chosen(1, "theirs.dlq", 0, 7, "theirs.dlq-0-7")], [original])
    assert (sent, outcome) == ([], INVALID)
    assert "topic flights does not take a record of" in detail
