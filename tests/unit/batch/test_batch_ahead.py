"""One micro-batch in hand while the next is planned."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from batch.ahead import Ahead
from tidegate.errors import StoreFenced
from tidegate.record import TopicPartition

TP = TopicPartition("t", 0)
PATIENCE = 30.0


class Taking:
    """`taken`: the ends, in order. Each waits for the gate."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.gate, self.fails = threading.Event(), False

    def __call__(self, ends: Mapping[TopicPartition, int]) -> None:
        assert self.gate.wait(PATIENCE)
        if self.fails:
            raise StoreFenced("another has it")
        self.taken.append(ends[TP])


def test_who_gives_one_goes_on_until_he_has_the_next() -> None:
    """Which waits until the first is taken."""
    taking = Taking()
    with Ahead(taking) as ahead:
        ahead.give({TP: 1})
        assert taking.taken == []
        given = threading.Thread(target=ahead.give, args=[{TP: 2}])
        given.start()
        given.join(0.05)
        assert given.is_alive()
        taking.gate.set()
        ahead.wait()
        given.join(PATIENCE)
        ahead.wait()
    assert taking.taken == [1, 2]


def test_what_has_ended_one_is_said_to_whoever_asks() -> None:
    """With the next one, which is not begun, at the end, and meanwhile; but not before it has."""
    taking = Taking()
    taking.fails = True
    with Ahead(taking) as ahead:
        ahead.look()
        ahead.give({TP: 1})
        ahead.look()
        taking.gate.set()
        for ask in (ahead.wait, ahead.look, lambda: ahead.give({TP: 2})):
            with pytest.raises(StoreFenced):
                ask()
    assert taking.taken == []
