"""The dead-letter topic, read from its beginning to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from dlq.envelope import Envelope
from dlq.original import Original
from tidegate.clock import Clock, SystemClock
from tidegate.config.kafka import Kafka, confluent_options
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.headers import Headers, headers_of
from tidegate.reach import quiet, why_unreachable
from tidegate.record import TopicPartition
from tidegate.store.reading import committed_offsets

_POLL_RECORDS = 500
_POLL_SECONDS = 0.1
_PREFETCH_KIB = 16_384  # librdkafka would hold 64 MiB of each topic

# What librdkafka says of an offset, partition or topic that the cluster does not have.
NOT_THERE = (
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError._PARTITION_EOF,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class DeadLetter(NamedTuple):
    """An envelope and where it is in the dead-letter topic. `timestamp`: Kafka's, ms."""

    envelope: Envelope
    topic: str
    partition: int
    offset: int
    timestamp: int


class Placed(NamedTuple):
    """A record of a dead-letter topic as it stands there. `timestamp`: Kafka's, ms."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def read_records(
    kafka: Kafka, topic: str, *, field: str, patience: float = 15.0, clock: Clock | None = None
) -> Iterator[Placed]:
    """All committed records of `topic`, partition by partition as they come, until the end of each was reached once.

    Nothing is committed. At most `_PREFETCH_KIB` are held. `field`: the setting that names the topic. Raises ConfigError
    when the topic does not exist or a setting keeps the broker from answering, BrokerUnavailable when it gives nothing for
    `patience` seconds.
    """
    clock = clock or SystemClock()
    reasons: list[str] = []
    consumer = Consumer(reader_options(kafka, reasons))
    try:
        remaining = _partitions(consumer, kafka, topic, field, patience)
        consumer.assign([KafkaPartition(topic, partition, OFFSET_BEGINNING) for partition in remaining])
        heard = clock.monotonic()
        while remaining:
            messages = consumer.consume(_POLL_RECORDS, timeout=_POLL_SECONDS)
            if messages:
                heard = clock.monotonic()
            elif clock.monotonic() - heard > patience:
                raise unavailable(kafka, reasons, f"no answer for {patience:g} s")
            for message in messages:
                error = message.error()
                if error is None:
                    yield _placed(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    remaining.discard(cast(int, message.partition()))
                else:
                    raise unavailable(kafka, reasons, error.str())
    finally:
        consumer.close()


def read_one(
    kafka: Kafka, topic: str, partition: int, offset: int, *, patience: float = 15.0, clock: Clock | None = None
) -> DeadLetter | None:
    """The dead letter at one place, or None when the log does not have it any more. Raises BrokerUnavailable."""
    clock = clock or SystemClock()
    reasons: list[str] = []
    consumer = Consumer({**reader_options(kafka, reasons), "auto.offset.reset": "error"})
    try:
        if not has_topic(consumer, kafka, reasons, topic, patience):
            return None
        consumer.assign([KafkaPartition(topic, partition, offset)])
        until = clock.monotonic() + patience
        while clock.monotonic() < until:
            for message in consumer.consume(1, timeout=_POLL_SECONDS):
                error = message.error()
                if error is None:
                    return dead_letter(message) if message.offset() == offset else None
                if error.code() in NOT_THERE:
                    return None
        raise unavailable(kafka, reasons, f"no answer for {patience:g} s")
    finally:
        consumer.close()


def has_topic(consumer: Consumer, kafka: Kafka, reasons: list[str], topic: str, seconds: float) -> bool:
    """Whether the cluster has it. Of one that it has never met the client itself says only after half a minute that it is not
    there. Raises BrokerUnavailable."""
    try:
        error = consumer.list_topics(topic, timeout=seconds).topics[topic].error
    except KafkaException as raised:
        error = raised.args[0]
    if error is not None and error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise unavailable(kafka, reasons, error.str())
    return error is None


def _partitions(consumer: Consumer, kafka: Kafka, topic: str, field: str, patience: float) -> set[int]:
    try:
        found = consumer.list_topics(topic, timeout=patience).topics[topic]
    except KafkaException as error:
        raise why_unreachable(kafka, error.args[0].str()) from None
    if found.error is not None or not found.partitions:
        raise ConfigError(
            "the dead-letter topic does not exist",
            field=field,
            value=topic,
            expected="a topic of this cluster",
            hint="the worker creates it when it starts; check the name if it has run",
        )
    return set(found.partitions)


def reader_options(kafka: Kafka, reasons: list[str]) -> dict[str, Any]:
    """For a consumer that joins no group. `reasons`: is given what librdkafka says of a broker that is away."""
    return {
        **confluent_options(kafka),
        "group.id": "tidegate-dlq",  # librdkafka wants one; nothing is committed and no group is joined
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 50,  # the end of a partition is only told after an empty fetch has waited this long
        "queued.max.messages.kbytes": _PREFETCH_KIB,
        "logger": quiet("dlq.reader"),
        "error_cb": lambda error: reasons.append(error.str()),
    }


def member_options(kafka: Kafka, group: str) -> dict[str, Any]:
    """For a consumer that joins `group` and begins where the group has never been at the log's first offset."""
    return {
        **reader_options(kafka, []),
        "group.id": group,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": kafka.session_timeout,
        "heartbeat.interval.ms": max(100, kafka.session_timeout // 10),  # how soon a rebalance is heard of
    }


def assign_committed(
    consumer: Consumer, partitions: list[KafkaPartition], timeout: float, begin: Callable[[KafkaPartition], None]
) -> KafkaException | None:
    """What a member does with partitions that it gets: `begin` is told of each, with the offset and metadata that the group has
    committed, and it is read from there, or from its beginning.

    Returned, not raised, is that the broker did not say: no exception leaves the callback in which this is called as one that
    anything catches.
    """
    try:
        found = committed_offsets(consumer, partitions, timeout)
    except KafkaException as error:
        return error
    for one in found:
        begin(one)
        one.offset = one.offset if one.offset >= 0 else OFFSET_BEGINNING
    consumer.assign(found)
    return None


def original_of(message: Message) -> Original:
    """What goes back of a record of a dead-letter topic."""
    placed = _placed(message)
    tp = TopicPartition(cast(str, message.topic()), placed.partition)
    return Original.of(
        placed.key, placed.value, placed.headers, tp=tp, offset=placed.offset, timestamp=placed.timestamp
    )


def dead_letter(message: Message) -> DeadLetter:
    """A record of a dead-letter topic."""
    topic, placed = cast(str, message.topic()), _placed(message)
    envelope = Envelope.from_record(
        placed.key,
        placed.value,
        placed.headers,
        tp=TopicPartition(topic, placed.partition),
        offset=placed.offset,
        timestamp=placed.timestamp,
    )
    return DeadLetter(envelope, topic, placed.partition, placed.offset, placed.timestamp)


def _placed(message: Message) -> Placed:
    # A record that was read has all of these; the client's types also cover those that are yet to be written.
    partition, offset = cast(int, message.partition()), cast(int, message.offset())
    return Placed(partition, offset, message.timestamp()[1], message.key(), message.value(), headers_of(message))


def unavailable(kafka: Kafka, reasons: list[str], otherwise: str) -> BrokerUnavailable:
    """The error for a broker that gave no answer: the last of `reasons`, or `otherwise`."""
    reason = reasons[-1] if reasons else otherwise
    return BrokerUnavailable(f"Kafka at {kafka.bootstrap_servers} stopped answering: {reason}")
