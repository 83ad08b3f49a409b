"""Cutting a fetch into batches, and the bookkeeping of positions."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from types import SimpleNamespace

from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from tidegate.record import TopicPartition
from transport.batch import record_size, split
from transport.positions import Position
from transport.thread import End

TP = TopicPartition("flights", 0)


def record(offset: int, size: int) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord("flights", 0, offset, 0, 0, None, bytes(size), None, -1, size, ())


@given(
    st.lists(st.integers(0, 500), max_size=60),
    st.integers(1, 20),
    st.integers(1, 2000),
    st.lists(st.integers(1, 9), min_size=60),
)
def test_split_keeps_every_record_within_the_limits(sizes: list[int], most: int, nbytes: int, gaps: list[int]) -> None:
    """Batches together are the fetch, in order; each is as large as both limits allow, or a single record."""
    records = [record(sum(gaps[: i + 1]), size) for i, size in enumerate(sizes)]
    batches = list(split(TP, records, max_records=most, max_bytes=nbytes))
    assert [r for batch in batches for r in batch.records] == records
    for batch in batches:
        assert batch.nbytes == sum(map(record_size, batch.records))
        assert (batch.first, batch.last) == (batch.records[0].offset, batch.records[-1].offset)
        assert len(batch) <= most
        assert batch.nbytes <= nbytes or len(batch) == 1
    for one, other in pairwise(batches):
        assert len(one) == most or one.nbytes + record_size(other.records[0]) > nbytes


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.randoms())
def test_offsets_move_past_finished_batches_only(gaps: list[int], rng: Random) -> None:
    """Whatever the order of the acks, what is done is the offset after the longest finished run from the front."""
    position = Position()
    messages = [SimpleNamespace(offset=sum(gaps[: i + 1]), acked=False, generation_id=1) for i in range(len(gaps))]
    position.in_flight.extend(messages)
    for message in rng.sample(messages, len(messages)):
        message.acked = True
        position.sweep()
        finished = next((i for i, m in enumerate(messages) if not m.acked), len(messages))
        assert position.done == (messages[finished - 1].offset + 1 if finished else None)


def test_only_responses_are_evidence_of_idleness() -> None:
    """A partition is at its end from the second response at one position, and idle for as long as responses come."""
    position = Position()
    steps = [
        (End(5, 5, 5, 1000, False), None),  # brought us here: it had the records
        (End(5, 5, 5, 1000, False), None),  # the same response, looked at again later
        (End(5, 5, 5, 1100, False), 0.0),
        (End(5, 5, 5, 1100, False), 0.0),
        (End(5, 5, 5, 1600, False), 0.5),
        (End(5, 7, 7, 1700, True), None),  # records have come
        (End(7, 7, 7, 1700, False), None),
        (End(7, 7, 9, 1800, False), 0.0),  # an open transaction: nothing that could be read
    ]
    for end, idle in steps:
        position.learn(end)
        assert (position.idle_seconds if position.at_end else None) == idle


def test_epochs_are_never_used_twice() -> None:
    """A batch of before a rebalance is never taken for a current one."""
    epochs = []
    for _ in range(3):
        position = Position()
        epochs.append(position.epoch)
        position.restart(5)
        epochs.append(position.epoch)
    assert len(set(epochs)) == 6
