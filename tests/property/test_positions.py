"""What the group is told of a partition, against a model that remembers every record: any order of delivering,
acknowledging, seeking and revoking."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidegate.record import TopicPartition
from transport.batch import SourceBatch, split
from transport.positions import Position

TP = TopicPartition("flights", 0)


@dataclass
class Sent:
    """A delivered batch, as the model sees it."""

    message: Any
    offsets: list[int]
    epoch: int
    acked: bool = False


class Deliveries(RuleBasedStateMachine):
    """The consumer's steps on one position, as `transport/consumer.py` takes them, on a log with gaps."""

    @initialize(gaps=st.lists(st.integers(1, 4), min_size=1, max_size=60), first=st.integers(0, 50))
    def begin(self, gaps: list[int], first: int) -> None:
        """A log of records with gaps between them, opened at its first."""
        self.log = [first + sum(gaps[:index]) for index in range(len(gaps))]
        self.sent: list[Sent] = []
        self.position = Position()
        self.position.restart(first)
        self.start = first  # where this epoch goes on
        self.fetched = first  # the next offset to fetch

    @rule(count=st.integers(1, 12), most=st.integers(1, 5))
    def fetch(self, count: int, most: int) -> None:
        """Some records come, and are cut into batches that wait."""
        found = [offset for offset in self.log if offset >= self.fetched][:count]
        records: Any = [SimpleNamespace(offset=offset, key=None, value=b"") for offset in found]
        self.position.held.extend(split(TP, records, max_records=most, max_bytes=1 << 20, epoch=self.position.epoch))
        if found:
            self.fetched = found[-1] + 1

    @precondition(lambda self: self.position.held)
    @rule()
    def deliver(self) -> None:
        """The oldest batch that waits goes to the agent."""
        batch: SourceBatch = self.position.held.popleft()
        message = SimpleNamespace(offset=batch.last, acked=False, generation_id=7, tracked=True)
        self.position.in_flight.append(message)
        self.position.next = batch.last + 1
        self.sent.append(Sent(message, [record.offset for record in batch.records], batch.epoch))

    @precondition(lambda self: any(not sent.acked for sent in self.sent))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """Any batch that was ever delivered, in any order; of an earlier epoch, too."""
        sent = data.draw(st.sampled_from([sent for sent in self.sent if not sent.acked]))
        sent.acked = sent.message.acked = True
        self.position.sweep()

    @rule(data=st.data())
    def seek(self, data: st.DataObject) -> None:
        """Back to what was read, or on to what was not."""
        self.start = self.fetched = data.draw(st.sampled_from(self.log))
        before = self.position.epoch
        self.position.restart(self.start)
        assert self.position.epoch > before
        assert all(sent.message.generation_id is None or sent.epoch != before or sent.acked for sent in self.sent)

    @invariant()
    def nothing_unfinished_is_passed(self) -> None:
        """`done` is the offset after the longest finished run of this epoch, counted from its start; else None."""
        finished: int | None = None
        for sent in (sent for sent in self.sent if sent.epoch == self.position.epoch):
            if not sent.acked:
                break
            finished = sent.offsets[-1] + 1
        assert self.position.done == finished

    @invariant()
    def every_record_is_somewhere(self) -> None:
        """From the start of the epoch, each record of the log is finished, delivered, held, or yet to be fetched."""
        done = self.start if self.position.done is None else self.position.done
        in_flight = {id(message) for message in self.position.in_flight}  # two epochs' messages may look the same
        waiting = [offset for sent in self.sent if id(sent.message) in in_flight for offset in sent.offsets]
        held = [record.offset for batch in self.position.held for record in batch.records]
        expected = [offset for offset in self.log if offset >= self.start]
        finished = [offset for offset in expected if offset < done]
        assert finished + waiting + held == [offset for offset in expected if offset < self.fetched]


TestDeliveries = pytest.mark.slow(Deliveries.TestCase)
TestDeliveries.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
