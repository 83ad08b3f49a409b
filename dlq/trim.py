"""Topics of tidegate's own keep what is dealt with no longer. Without the right to delete records they grow."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from tidegate.clock import Clock
from tidegate.config.kafka import Kafka, confluent_options
from tidegate.record import TopicPartition

log = structlog.get_logger(__name__)
_TIMEOUT = 15.0  # seconds
_EVERY = 60.0  # seconds between two rounds


def delete_before(kafka: Kafka, offsets: Mapping[TopicPartition, int]) -> None:
    """Delete the records of each partition before this offset. What cannot be deleted is said, and stays."""
    admin = AdminClient({"log_level": 5, **confluent_options(kafka)})
    places = [KafkaPartition(tp.topic, tp.partition, offset) for tp, offset in offsets.items()]
    for place, done in admin.delete_records(places, request_timeout=_TIMEOUT).items():
        try:
            done.result(_TIMEOUT)
        except KafkaException as error:
            log.warning("topic.not_trimmed", topic=place.topic, partition=place.partition, error=error.args[0].str())


class Trimmer:
    """Deletes now and then what is noted. One thread."""

    def __init__(self, kafka: Kafka, clock: Clock) -> None:
        self._kafka, self._clock = kafka, clock
        self._offsets: dict[TopicPartition, int] = {}
        self._next = clock.monotonic() + _EVERY

    def note(self, offsets: Mapping[TopicPartition, int]) -> None:
        """What is before these offsets is not needed any more."""
        self._offsets.update(offsets)

    def trim(self) -> None:
        """Delete, if it is time."""
        now = self._clock.monotonic()
        if self._offsets and now >= self._next:
            self._next = now + _EVERY
            offsets, self._offsets = self._offsets, {}
            delete_before(self._kafka, offsets)
