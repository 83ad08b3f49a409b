"""How much of one partition may be out at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from transport.consumer import Consumer
from transport.ownership import TransportSettings
from transport.positions import Position

SETTINGS = TransportSettings(max_batch_records=1600, max_batch_bytes=16_000, max_in_flight=3)


def has_room(*batches: tuple[int, int]) -> bool:
    """`batches`: records and bytes of each that is not acknowledged."""
    position, consumer = Position(), cast(Any, SimpleNamespace(settings=SETTINGS))
    for records, nbytes in batches:
        batch = type("Batch", (), {"__len__": lambda _, n=records: n, "nbytes": nbytes})()
        position.in_flight.append(SimpleNamespace(value=batch))
    return bool(Consumer._has_room(consumer, position))


@pytest.mark.parametrize(
    ("batches", "room"),
    [
        ([(1600, 16_000)] * 2, True),
        ([(1600, 16_000)] * 3, False),
        ([(9, 90)] * 11, True),
        ([(10, 90)] * 10, False),
        ([(1, 100)] * 10, False),
        ([(1, 10), (1, 10), (1600, 10)], False),
    ],
    ids=["two full ones", "three full ones", "few small ones", "as many records", "as many bytes", "one is full"],
)
def test_three_batches_or_few_records(batches: list[tuple[int, int]], room: bool) -> None:
    """At most `max_in_flight` batches, or any number of which all together are less than a sixteenth of a full one."""
    assert has_room(*batches) is room
