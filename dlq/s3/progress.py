"""How far a topic's dead letters are in S3: the offsets of the group that writes them."""

from __future__ import annotations

from types import TracebackType

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from dlq.reader import reader_options
from tidegate.config.kafka import Kafka, confluent_options
from tidegate.errors import BrokerUnavailable
from tidegate.store.reading import committed_offsets
from tidegate.topics import log_ends

_TIMEOUT = 15.0  # seconds for an answer of the broker


class Progress:
    """Of `group` on `topic`, without being a member."""

    def __init__(self, kafka: Kafka, group: str, topic: str) -> None:
        self._kafka, self._topic = kafka, topic
        self._consumer = Consumer({**reader_options(kafka, []), "group.id": group})

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._consumer.close()

    def ends(self) -> dict[int, int]:
        """Partition → the end of its log. Raises BrokerUnavailable."""
        return log_ends(confluent_options(self._kafka), self._topic)

    def left(self, ends: dict[int, int]) -> int:
        """How many offsets up to these ends are not in S3 yet. Raises BrokerUnavailable."""
        asked = [KafkaPartition(self._topic, partition) for partition in ends]
        try:
            found = committed_offsets(self._consumer, asked, _TIMEOUT)
        except KafkaException as error:
            raise BrokerUnavailable(f"cannot read the offsets of a group: {error.args[0].str()}") from error
        return sum(max(0, ends[one.partition] - max(0, one.offset)) for one in found)
