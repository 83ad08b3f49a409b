"""How far a topic's dead letters are in S3: the offsets of the group that writes them; and the end of what is there."""

from __future__ import annotations

from types import TracebackType

import structlog
from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from dlq.reader import reader_options
from dlq.s3.naming import Cut
from tidegate.config.kafka import Kafka, confluent_options
from tidegate.errors import BrokerUnavailable
from tidegate.topics import log_ends

log = structlog.get_logger(__name__)
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
            found = self._consumer.committed(asked, timeout=_TIMEOUT)
        except KafkaException as error:
            raise BrokerUnavailable(f"cannot read the offsets of a group: {error.args[0].str()}") from error
        return sum(max(0, ends[one.partition] - max(0, one.offset)) for one in found)


def delete_up_to(kafka: Kafka, cut: Cut) -> None:
    """What is in S3 is not needed in a topic of tidegate's own. Without the right to delete, the topic grows."""
    admin = AdminClient({"log_level": 5, **confluent_options(kafka)})
    place = KafkaPartition(cut.tp.topic, cut.tp.partition, cut.last + 1)
    for done in admin.delete_records([place], request_timeout=_TIMEOUT).values():
        try:
            done.result(_TIMEOUT)
        except KafkaException as error:
            log.warning("dlq.s3.not_deleted", partition=str(cut.tp), error=error.args[0].str())
