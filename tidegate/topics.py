"""The topics a pipeline reads and writes: created when missing, grown when their source has grown, never shrunk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AdminClient,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    TopicMetadata,
)

from tidegate.clock import Deadline
from tidegate.config.kafka import Kafka, confluent_options
from tidegate.config.topic_settings import topic_settings, trouble_with, way_out
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.reach import quiet, why_unreachable

log = structlog.get_logger(__name__)
_POLL = 0.1
_REACH = (5.0, 25.0)  # seconds for a first answer of the broker; between them is looked at why there is none
_NO_ID = "A" * 22  # all zeros: a broker of before there were ids
FOREVER_KEPT = {"retention.ms": "-1"}  # dead letters, late records, retries: somebody has to look at them first


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that must exist. `config` is applied on creation only: what an operator has changed since stays, unless the
    topic `holds_state` and could no longer do so.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    holds_state: bool = False


async def ensure_topics(
    options: Mapping[str, Any], specs: Sequence[TopicSpec], *, replication: int = -1, within: float = 30.0
) -> dict[str, int]:
    """Create what is missing, add partitions where there are too few, wait until every partition has a leader.

    Returns the partitions each topic now has. `replication` -1: the broker's default. `within` is in seconds.
    Raises BrokerUnavailable, or ConfigError for a topic that cannot be created as asked, or that would forget its state.
    """
    return await asyncio.to_thread(_ensure_topics, options, specs, replication, within)


async def partition_counts(
    options: Mapping[str, Any], topics: Sequence[str], *, within: float = 30.0
) -> dict[str, int]:
    """Partitions of each topic. Raises ConfigError for one that does not exist, BrokerUnavailable."""
    return await asyncio.to_thread(_partition_counts, options, topics, within)


async def reached_partitions(kafka: Kafka, topics: Sequence[str]) -> dict[str, int]:
    """How many partitions each topic has: what an engine asks a cluster first.

    A broker that is away is waited for, half a minute; a setting that it refuses is said at once. Raises ConfigError, also
    for a topic that does not exist, and BrokerUnavailable, both with the way out.
    """
    reason: ConfigError | BrokerUnavailable
    for seconds in _REACH:
        try:
            return await partition_counts(confluent_options(kafka), topics, within=seconds)
        except BrokerUnavailable as error:
            reason = await asyncio.to_thread(why_unreachable, kafka, str(error))
            if isinstance(reason, ConfigError):
                break
    raise reason


async def topic_ids(options: Mapping[str, Any], topics: Sequence[str], *, within: float = 30.0) -> dict[str, str]:
    """Each topic's id (KIP-516), by which it differs from an earlier one with its name; "" where the broker gives none.

    Raises BrokerUnavailable, also for a topic that does not exist (any more): whoever asks has seen it before.
    """
    return await asyncio.to_thread(_topic_ids, options, topics, within)


def _topic_ids(options: Mapping[str, Any], topics: Sequence[str], timeout: float) -> dict[str, str]:
    admin, found = _admin(options), dict[str, str]()
    for topic, asked in admin.describe_topics(TopicCollection(list(topics)), request_timeout=timeout).items():
        try:
            topic_id = str(asked.result().topic_id)
        except KafkaException as error:
            raise BrokerUnavailable(f"cannot describe topic {topic!r}: {error.args[0].str()}") from error
        found[topic] = "" if topic_id == _NO_ID else topic_id
    return found


def log_ends(options: Mapping[str, Any], topic: str, *, within: float = 30.0) -> dict[int, int]:
    """The end of each partition's log, as a reader of committed records sees it. Raises BrokerUnavailable."""
    admin, deadline = _admin(options), Deadline(within)
    topics = _metadata(admin, deadline)
    if topic not in topics:
        raise BrokerUnavailable(f"topic {topic!r} does not exist (any more)")
    end = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # of confluent-kafka
    asked = {TopicPartition(topic, partition): end for partition in topics[topic].partitions}
    found = admin.list_offsets(
        asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=deadline.remaining()
    )
    try:
        return {at.partition: answer.result().offset for at, answer in found.items()}
    except KafkaException as error:
        raise BrokerUnavailable(f"cannot read the ends of {topic!r}: {error.args[0].str()}") from error


def _partition_counts(options: Mapping[str, Any], topics: Sequence[str], timeout: float) -> dict[str, int]:
    found = _metadata(_admin(options), Deadline(timeout))
    for topic in topics:
        if topic not in found:
            near = sorted(name for name in found if not name.startswith("__"))[:10]
            raise ConfigError(
                f"topic {topic!r} does not exist", field="source.topics", value=topic,
                expected="a topic of this cluster" + (f", such as {', '.join(near)}" if near else ""),
                hint="create it with the partitions you want; tidegate does not create source topics",
            )  # fmt: skip
    return {topic: len(found[topic].partitions) for topic in topics}


def _ensure_topics(
    options: Mapping[str, Any], specs: Sequence[TopicSpec], replication: int, timeout: float
) -> dict[str, int]:
    deadline, admin = Deadline(timeout), _admin(options)
    found = _metadata(admin, deadline)
    missing = [spec for spec in specs if spec.name not in found]
    small = [spec for spec in specs if spec.name in found and len(found[spec.name].partitions) < spec.partitions]
    if missing:
        topics = [NewTopic(s.name, s.partitions, replication, config=dict(s.config)) for s in missing]
        _settle(
            "create", admin.create_topics(topics, operation_timeout=deadline.remaining()), {s.name: s for s in missing}
        )
    if small:
        grown = [NewPartitions(spec.name, spec.partitions) for spec in small]
        _settle(
            "grow", admin.create_partitions(grown, operation_timeout=deadline.remaining()), {s.name: s for s in small}
        )
    counts = _wait_for_leaders(admin, specs, deadline)
    _require_memory(admin, [spec.name for spec in specs if spec.holds_state], deadline)
    return counts


def _require_memory(admin: AdminClient, topics: Sequence[str], deadline: Deadline) -> None:
    """Raises ConfigError when one of these topics forgets state that is still needed."""
    for topic, found in topic_settings(admin, topics, deadline.remaining()).items():
        if isinstance(found, str):
            log.warning("topics.unchecked", topic=topic, reason=found)  # a worker may lack the right to look
        elif (trouble := trouble_with(found)) is not None:
            raise ConfigError(f"topic {topic!r} cannot hold state: {trouble}", hint=way_out(topic))


def _settle(act: str, futures: Mapping[str, Any], specs: Mapping[str, TopicSpec]) -> None:
    """Wait for every answer. Another worker may have been faster: that is no error."""
    for name, future in futures.items():
        try:
            future.result()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() in (KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.INVALID_PARTITIONS):
                continue  # the leaders' check below sees whether the topic is now as asked
            if reason.retriable() or reason.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
                raise BrokerUnavailable(f"cannot {act} topic {name!r}: {reason.str()}") from error
            spec = specs[name]
            raise ConfigError(
                f"cannot {act} topic {name!r}: {reason.str()}",
                value={"partitions": spec.partitions, "config": dict(spec.config)},
                hint="create the topic by hand, or give this user the right to",
            ) from error


def _wait_for_leaders(admin: AdminClient, specs: Sequence[TopicSpec], deadline: Deadline) -> dict[str, int]:
    """A fresh topic answers NotLeaderForPartition for a while: nobody should have to meet that."""
    pending = {spec.name: spec for spec in specs}
    counts: dict[str, int] = {}
    while pending:
        found = _metadata(admin, deadline)
        for name, spec in list(pending.items()):
            partitions = found[name].partitions if name in found else {}
            if len(partitions) >= spec.partitions and all(p.leader >= 0 for p in partitions.values()):
                counts[name] = len(partitions)
                del pending[name]
        if pending:
            if deadline.expired:
                raise BrokerUnavailable(f"topics without a leader for every partition: {', '.join(sorted(pending))}")
            time.sleep(_POLL)
    return counts


def _metadata(admin: AdminClient, deadline: Deadline) -> dict[str, TopicMetadata]:
    try:
        topics = admin.list_topics(timeout=max(deadline.remaining(), 1.0)).topics
    except KafkaException as error:
        raise BrokerUnavailable(f"cannot read the cluster's topics: {error.args[0].str()}") from error
    return {name: topic for name, topic in topics.items() if topic.error is None}


def _admin(options: Mapping[str, Any]) -> AdminClient:
    """Without librdkafka's own lines: it writes each failed connection, and that a client is closed with its last answers
    unread."""
    own: dict[str, Any] = {"logger": quiet("tidegate.topics")}
    return AdminClient({**own, **options})
