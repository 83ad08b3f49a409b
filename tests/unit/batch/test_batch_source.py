"""Where a run starts."""

from __future__ import annotations

from typing import Literal

import pytest

from batch.source import starting_offset
from tidegate.config.schema import Source
from tidegate.errors import OffsetOutOfRange
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState

TP = TopicPartition("t", 0)


def start(upto: int, low: int, high: int, policy: Literal["fail", "earliest"] = "fail") -> int:
    return starting_offset(Source(topics=("t",), on_out_of_range=policy), TP, PartitionState(upto), low, high)


@pytest.mark.parametrize(
    ("upto", "low", "high", "expected"),
    [(-1, 0, 10, -2), (-1, 7, 10, -2), (4, 0, 10, 5), (9, 0, 10, 10), (4, 5, 10, 5)],
)
def test_the_offset_after_the_last_applied_one(upto: int, low: int, high: int, expected: int) -> None:
    """Nothing applied: the log's beginning, as Spark writes it (-2)."""
    assert start(upto, low, high) == expected


@pytest.mark.parametrize(("upto", "low", "high"), [(3, 5, 10), (10, 0, 10)])
def test_a_log_that_has_lost_it(upto: int, low: int, high: int) -> None:
    """Deleted before it was read, or a topic made anew: the error names partition and offsets."""
    with pytest.raises(
        OffsetOutOfRange, match=rf"t-0: the state goes on at offset {upto + 1}, but the log has {low} to"
    ):
        start(upto, low, high)


def test_a_loss_can_be_accepted_but_not_a_new_topic() -> None:
    """`onOutOfRange: earliest` goes on with what is left; offsets that are not there yet are no loss by retention."""
    assert start(3, 5, 10, "earliest") == 5
    with pytest.raises(OffsetOutOfRange):
        start(10, 0, 10, "earliest")
