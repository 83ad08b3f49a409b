"""The group's offsets after a catch-up. For monitoring only: where work goes on is in the store."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import AdminClient

from tidegate.config.kafka import Kafka, confluent_options
from tidegate.record import TopicPartition

log = structlog.get_logger(__name__)
_ANSWER = 10.0  # seconds


def write_group_offsets(kafka: Kafka, group: str, applied: Mapping[TopicPartition, int]) -> bool:
    """Tell the group how far its partitions are. `applied`: the last offset that is applied.

    False: not written, since the group has members; workers that are alive do it themselves. Never raises for the broker.
    """
    offsets = [ConfluentPartition(tp.topic, tp.partition, upto + 1) for tp, upto in applied.items() if upto >= 0]
    if not offsets:
        return True
    admin = AdminClient({**confluent_options(kafka), "log_level": 0})
    try:
        futures = admin.alter_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group, offsets)], request_timeout=_ANSWER
        )
        written = [one for future in futures.values() for one in future.result(_ANSWER).topic_partitions or []]
    except (KafkaException, TimeoutError) as error:
        log.info("catchup.group_offsets_left", group=group, reason=str(error))
        return False
    return all(one.error is None for one in written)
