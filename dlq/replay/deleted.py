"""Which topics have been deleted, for certain: what was sent to one of those is waited for no more.

A broker that has just started, or is cut off, does not know topics that are there. So of one that it does not know the
controller is asked, which makes and deletes them, whether it would make such a topic; nothing is made. Who has not the
right to make topics gets no answer to that, and waits until brokers have not known it for ten minutes.

A topic that was made anew has the name of the one that was deleted, and is shorter, until it has grown.
"""

from __future__ import annotations

from collections.abc import Collection

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # its stubs do not re-export them

from dlq.replay.jobs import Bounds
from dlq.replay.targets import QUIET
from tidegate.clock import Clock
from tidegate.config.kafka import Kafka, confluent_options
from tidegate.errors import BrokerUnavailable
from tidegate.record import TopicPartition

_TIMEOUT = 15.0  # seconds for an answer
_UNKNOWN = 600.0  # seconds: far longer than a broker takes to start, or to be missed when it is cut off


class DeletedTopics:
    """One thread."""

    def __init__(self, kafka: Kafka, clock: Clock) -> None:
        self._admin, self._clock = AdminClient(confluent_options(kafka) | QUIET), clock
        self._unknown_since: dict[str, float] = {}

    def among(self, topics: Collection[str]) -> frozenset[str]:
        """Those of these, all of which have been there, that have been deleted. Raises BrokerUnavailable."""
        unknown = self._unknown(topics)
        now = self._clock.monotonic()
        self._unknown_since = {topic: self._unknown_since.get(topic, now) for topic in unknown}
        return frozenset(topic for topic in unknown if self._is_deleted(topic))

    def made_anew(self, written: Bounds) -> frozenset[str]:
        """The topics that end before an offset which was written there. Raises BrokerUnavailable."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # of confluent-kafka
        asked = {KafkaPartition(*tp): latest for tp in written}
        # Not the end of what is committed: an open transaction of anybody's would be in the way.
        level = IsolationLevel.READ_UNCOMMITTED
        ends = self._admin.list_offsets(asked, isolation_level=level, request_timeout=_TIMEOUT)
        shorter = set()
        for at, answer in ends.items():
            try:
                end = int(answer.result().offset)
            except KafkaException as error:
                raise BrokerUnavailable(f"cannot read the end of {at.topic}: {error.args[0].str()}") from error
            if end <= written[TopicPartition(at.topic, at.partition)]:
                shorter.add(at.topic)
        return frozenset(shorter)

    def _unknown(self, topics: Collection[str]) -> list[str]:
        """Those of which the broker that is asked has not heard."""
        unknown = []
        asked = self._admin.describe_topics(TopicCollection(sorted(topics)), request_timeout=_TIMEOUT)
        for topic, answer in asked.items():
            try:
                answer.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise BrokerUnavailable(f"cannot describe topic {topic!r}: {error.args[0].str()}") from error
                unknown.append(topic)
        return unknown

    def _is_deleted(self, topic: str) -> bool:
        (answer,) = self._admin.create_topics(
            [NewTopic(topic, -1, -1)], validate_only=True, request_timeout=_TIMEOUT
        ).values()
        try:
            answer.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            return self._clock.monotonic() - self._unknown_since[topic] >= _UNKNOWN
        return True
