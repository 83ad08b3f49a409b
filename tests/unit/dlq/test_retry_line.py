"""How what a topic does not take is tried again."""

from __future__ import annotations

from typing import Any

from dlq.retry.line import MOST, Line


def test_the_one_at_fault_is_found_and_waits() -> None:
    """Smaller shares go through until the one record that is not taken is alone at the head; that one is tried after longer and
    longer waits. Once it is taken the shares grow until the partition goes with the others again."""
    line, at_fault, refuses, now = Line(), b"37", True, 0.0
    records: list[Any] = [b"%02d" % number for number in range(100)]
    for record in records:
        line.append(record)
    sent: list[Any] = []
    waits, shares = list[float](), list[int]()
    while line.messages:
        now = max(now, line.not_before)
        share = [line.popleft() for _ in range(min(len(line.messages), MOST if line.alone is None else line.alone))]
        if refuses and at_fault in share:
            line.not_taken(share, now, with_others=line.alone is None)
            assert list(line.messages) == records[len(sent) :], "in their order"
            if line.not_before > now:
                assert line.messages[0] == at_fault
                waits.append(line.not_before - now)
                refuses = len(waits) < 8
        else:
            sent += share
            line.taken()
            if not refuses:
                shares.append(len(share))
    assert waits == [0.5, 1, 2, 4, 8, 10, 10, 10]
    assert sent == records
    assert shares == [1, 2, 4, 8, 16, 32]
    assert line.nbytes == 0
    for _ in range(10):
        line.taken()
    assert line.alone is None
