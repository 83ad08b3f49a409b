"""The raw records behind dead letters of the index, in bulk: from their topics, else from files, never from the index."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, cast

from confluent_kafka import Consumer, Message
from confluent_kafka import TopicPartition as KafkaPartition

from dlq.index.letters import indexed_id
from dlq.original import Original
from dlq.reader import NOT_THERE, has_topic, original_of, reader_options, unavailable
from dlq.s3.archive import Archive
from tidegate.clock import Clock, SystemClock
from tidegate.config.kafka import Kafka

_PATIENCE = 15.0  # seconds without a record before the broker is called unavailable
_POLL_RECORDS, _POLL_SECONDS = 1_000, 0.1
_JUMP = 5_000  # offsets: a longer way to the next letter is not read but jumped over
BUDGET = 33_554_432
"""Bytes of keys and values that one fetch returns at most (the first record whatever it takes)."""


class Chosen(NamedTuple):
    """One letter: its row in the index, where its record is, and its place in its job (0 without one)."""

    letter: int
    topic: str
    partition: int
    offset: int
    id: str
    replays: int = 0
    state: str = "open"
    position: int = 0


class RawReader:
    """Fetches records by place. Fastest in the order of the topics, since what is read ahead is kept. One thread."""

    def __init__(self, kafka: Kafka, archive: Archive, clock: Clock | None = None) -> None:
        self._kafka, self._archive, self._clock = kafka, archive, clock or SystemClock()
        self._reasons: list[str] = []
        self._consumer = Consumer({**reader_options(kafka, self._reasons), "auto.offset.reset": "earliest"})
        self._at: tuple[str, int] | None = None
        self._ahead: deque[Message] = deque()
        self._there: dict[str, bool] = {}  # whether the cluster has a topic
        self._next = -1  # the offset that the consumer, with what is read ahead, has come to

    def fetch(self, wanted: Sequence[Chosen], budget: int = BUDGET) -> list[Original | None]:
        """The records of the first of `wanted` (in the order of topic, partition, offset), as many as fit in `budget`
        bytes; None where the topic does not have the record any more, or has another one there, and no file has it.

        Raises BrokerUnavailable, BucketUnavailable, StoreUnavailable.
        """
        found: list[Original | None] = []
        for one in wanted:
            original = self._one(one)
            if original is None or indexed_id(original.id) != one.id:  # deleted, or the topic was made anew
                kept = self._archive.find(one.letter)
                original = None if kept is None else kept.original
            if original is not None:
                budget -= len(original.value or b"") + len(original.key or b"")
            found.append(original)
            if budget <= 0:
                break
        return found

    def close(self) -> None:
        self._consumer.close()

    def _one(self, wanted: Chosen) -> Original | None:
        if not self._has(wanted.topic):
            return None
        self._go_to(wanted)
        heard = self._clock.monotonic()
        while True:
            while self._ahead:
                message = self._ahead[0]
                error = message.error()
                offset = cast(int, message.offset())
                if error is None and offset > wanted.offset:  # retention or compaction has been there
                    return None
                self._ahead.popleft()
                if error is None:
                    self._next = offset + 1
                    if offset == wanted.offset:
                        return original_of(message)
                elif (
                    error.code() in NOT_THERE
                ):  # also an end that lies behind it: all of the log up to there is deleted
                    self._at = None  # the consumer says it once only
                    return None
            messages = self._consumer.consume(_POLL_RECORDS, timeout=_POLL_SECONDS)
            if messages:
                heard = self._clock.monotonic()
                self._ahead.extend(messages)
            elif self._clock.monotonic() - heard > _PATIENCE:
                raise unavailable(self._kafka, self._reasons, f"no answer for {_PATIENCE:g} s")

    def _has(self, topic: str) -> bool:
        if topic not in self._there:
            self._there[topic] = has_topic(self._consumer, self._kafka, self._reasons, topic, _PATIENCE)
        return self._there[topic]

    def _go_to(self, wanted: Chosen) -> None:
        """Go on reading where it was left, if that comes to the record soon; else begin at the record."""
        place = (wanted.topic, wanted.partition)
        soon = self._next <= wanted.offset <= self._next + len(self._ahead) + _JUMP
        if place != self._at or not soon:
            self._consumer.assign([KafkaPartition(*place, wanted.offset)])
            self._ahead.clear()
            self._at, self._next = place, wanted.offset
