"""What a run knows to be new in the store."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batch import written
from batch.written import Written
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState

A, B = TopicPartition("t", 0), TopicPartition("t", 1)
AT = PartitionState(9, high_water=1_000)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "_WORTH", 2)


def deltas(*keys: tuple[int, str | None]) -> pa.Table:
    return pa.table({"window_start": [at for at, _ in keys], "user": pa.array([user for _, user in keys], pa.string())})


def asked(one: Written, tp: TopicPartition, *keys: tuple[int, str | None]) -> list[bool]:
    return list(one.perhaps_there(tp, "per_user", deltas(*keys)).to_pylist())


@pytest.fixture
def one() -> Written:
    made = Written({"per_user": ["user"]})
    for tp in (A, B):
        made.begin(tp, AT)
    return made


def test_what_was_there_when_the_run_claimed_the_partition_reaches_up_to_its_high_water(one: Written) -> None:
    """Later windows had nothing."""
    assert asked(one, A, (1_000, "x"), (1_001, "x")) == [True, False]


def test_a_key_is_there_once_it_is_written(one: Written) -> None:
    """Of that window, that group and that partition, null being a group like any other; not when it was only looked at."""
    keys = (2_000, "x"), (2_000, None)
    assert asked(one, A, *keys) == [False, False]
    assert asked(one, A, *keys) == [False, False]
    one.settle({A: AT, B: AT})
    assert asked(one, A, *keys, (2_000, "y"), (3_000, "x")) == [True, True, False, False]
    assert asked(one, B, *keys) == [False, False]
    one.begin(B, AT)
    for _ in range(2):  # the second is of a micro-batch without results
        one.settle({A: AT, B: AT})
    assert len(one._known[A, "per_user"]) == 6


def test_a_micro_batch_of_few_rows_is_not_remembered_but_by_its_high_water(one: Written) -> None:
    """Which is later than all of its windows' starts."""
    asked(one, A, (2_000, "x"))
    one.settle({A: PartitionState(10, high_water=2_500), B: AT})
    assert asked(one, A, (2_000, "y"), (2_501, "x")) == [True, False]


def test_the_memory_is_bounded(one: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was forgotten is known by the high water alone."""
    monkeypatch.setattr(written, "_MOST", 3)
    for start, high_water in ((2_000, 2_500), (3_000, 3_500)):
        asked(one, A, (start, "x"), (start, "y"))
        one.settle({A: PartitionState(10, high_water=high_water), B: AT})
    assert asked(one, A, (3_000, "z"), (3_501, "x")) == [True, False]


def test_a_partition_that_is_claimed_again_begins_anew(one: Written) -> None:
    """Somebody else may have been there."""
    asked(one, A, (2_000, "x"), (2_000, "y"))
    one.begin(A, PartitionState(20, high_water=1_500))
    one.settle({A: AT, B: AT})
    assert asked(one, A, (1_500, "z"), (2_000, "x")) == [True, False]
