"""Where a member of a group begins with the partitions that it gets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, KafkaError, KafkaException

from dlq.reader import assign_committed
from dlq.s3.uploader import _agreed


class Answer:
    """A consumer whose group has committed these offsets, or whose broker has not said them all."""

    def __init__(self, *offsets: int, error: KafkaError | None = None) -> None:
        self.found = [SimpleNamespace(offset=offset, error=None) for offset in offsets]
        self.found[-1].error = error
        self.assigned: list[int] | None = None

    def committed(self, partitions: list[Any], timeout: float) -> list[Any]:
        return self.found

    def assign(self, partitions: list[Any]) -> None:
        self.assigned = [one.offset for one in partitions]

    def begun(self) -> tuple[KafkaException | None, list[int]]:
        begun: list[int] = []
        return assign_committed(cast(Any, self), [], 1.0, lambda one: begun.append(one.offset)), begun


def test_partitions_begin_where_the_group_is() -> None:
    """Else at their beginning; who begins them is told that nothing was committed."""
    answer = Answer(7, OFFSET_INVALID)
    assert answer.begun() == (None, [7, OFFSET_INVALID])
    assert answer.assigned == [7, OFFSET_BEGINNING]


def test_an_offset_that_was_not_said_is_none_that_there_is_not() -> None:
    """From its beginning the partition would be read a second time: none is begun, and the error says why."""
    answer = Answer(7, OFFSET_INVALID, error=KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    error, begun = answer.begun()
    assert isinstance(error, KafkaException)
    assert (begun, answer.assigned) == ([], None)


@pytest.mark.parametrize(
    ("metadata", "upto"), [('{"upto": 7}', 7), (None, None), ("", None), ("reset by ada", None), ("[1]", None)]
)
def test_offsets_that_somebody_has_set_by_hand(metadata: str | None, upto: int | None) -> None:
    """Some tools write a note beside them, which is not what the uploader has agreed on."""
    assert _agreed(metadata) == upto
