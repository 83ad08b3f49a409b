"""Reading topics from the outside, for people's questions: to their ends, committed records only, in bulk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from tidegate.config.kafka import Kafka, confluent_options
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.reach import quiet, why_unreachable
from tidegate.record import TopicPartition

_ANSWER = 10.0  # seconds
_SILENCE = 30.0  # seconds without a record or an end, before the broker is called unavailable
_POLL = 0.2
_BULK = 10_000
_COORDINATOR_MOVES = {  # a broker that has just started, or has just lost a group: its client does not ask again by itself
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}


def committed_offsets(
    consumer: Consumer, places: list[confluent_kafka.TopicPartition], seconds: float
) -> list[confluent_kafka.TopicPartition]:
    """What the consumer's group has committed: offsets, with their metadata; below 0 where it has nothing.

    Raises KafkaException: an offset that the broker does not say is none that there is not.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            found = consumer.committed(places, timeout=seconds)
            error = next((one.error for one in found if one.error is not None), None)
        except KafkaException as raised:
            error = raised.args[0]
        if error is None:
            return found
        if error.code() not in _COORDINATOR_MOVES or time.monotonic() > until:
            raise KafkaException(error)
        time.sleep(_POLL)


class TopicReader:
    """A consumer that joins no group and commits nothing. Use it in a `with` block.

    Raises from every method when the broker does not answer: ConfigError when a setting keeps it from that, else
    BrokerUnavailable.
    """

    def __init__(self, kafka: Kafka, group: str, *, answer: float = _ANSWER) -> None:
        """`answer`: seconds for one answer of the broker."""
        self._kafka, self._servers = kafka, kafka.bootstrap_servers
        self._answer = answer
        self._open: set[tuple[str, int]] = set()
        self._consumer = Consumer(
            {
                **confluent_options(kafka),
                "group.id": group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": 65_536,  # the reader's memory, whatever the topic holds
                "logger": quiet("tidegate.reading"),
            }
        )

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def partitions(self, topic: str) -> list[int]:
        """The topic's partitions; none when it does not exist."""
        try:
            found = self._consumer.list_topics(topic, timeout=self._answer).topics[topic]
        except KafkaException as error:
            raise self._away(error) from error
        return [] if found.error is not None else sorted(found.partitions)

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """The first offset that is there, and the one after the last."""
        try:
            low, high = self._consumer.get_watermark_offsets(_partition(tp), timeout=self._answer)
        except KafkaException as error:
            raise self._away(error) from error
        return int(low), int(high)

    def committed(self, tps: list[TopicPartition]) -> dict[TopicPartition, int | None]:
        """The group's committed offsets (the next one to read); None where it committed nothing."""
        if not tps:
            return {}
        try:
            found = committed_offsets(self._consumer, [_partition(tp) for tp in tps], self._answer)
        except KafkaException as error:
            raise self._away(error) from error
        return {TopicPartition(one.topic, one.partition): one.offset if one.offset >= 0 else None for one in found}

    def start(self, offsets: dict[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on."""
        self._consumer.assign([_partition(tp, offset) for tp, offset in offsets.items()])
        self._open = {(tp.topic, tp.partition) for tp in offsets}

    def to_the_end(self) -> Iterator[Message]:
        """Every committed record up to the end of each partition as it is when the reading comes there."""
        silent = 0.0
        while self._open:
            messages = self._consume()
            silent = 0.0 if messages else silent + _POLL
            if silent >= _SILENCE:
                raise BrokerUnavailable(f"{self._servers} gave nothing for {_SILENCE:.0f} s, short of the topics' ends")
            yield from self._records(messages)

    def first_timestamps(self, offsets: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The timestamp (ms since the epoch) of each partition's first committed record from these offsets on, if it has one."""
        self.start(offsets)
        found: dict[TopicPartition, int] = {}
        for message in self.to_the_end():
            topic, partition = message.topic(), message.partition()
            assert topic is not None
            assert partition is not None
            tp = TopicPartition(topic, partition)
            found.setdefault(tp, message.timestamp()[1])
            if (topic, partition) in self._open:  # one is enough
                self._open.discard((topic, partition))
                self._consumer.incremental_unassign([_partition(tp)])
        return found

    def for_a_while(self, seconds: float) -> Iterator[Message]:
        """What else is committed, until nothing came for some seconds."""
        silent = 0.0
        while silent < seconds:
            records = list(self._records(self._consume()))
            silent = 0.0 if records else silent + _POLL
            yield from records

    def _consume(self) -> list[Message]:
        try:
            return list(self._consumer.consume(_BULK, _POLL))
        except KafkaException as error:
            raise self._away(error) from error

    def _records(self, messages: list[Message]) -> Iterator[Message]:
        for message in messages:
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                self._open.discard((message.topic(), message.partition()))
            elif not error.retriable():
                raise BrokerUnavailable(f"{self._servers}: {error.str()}")

    def _away(self, error: KafkaException) -> BrokerUnavailable | ConfigError:
        return why_unreachable(self._kafka, error.args[0].str())


def _partition(tp: TopicPartition, offset: int = confluent_kafka.OFFSET_INVALID) -> Any:
    return confluent_kafka.TopicPartition(tp.topic, tp.partition, offset)
