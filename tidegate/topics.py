"""The topics a pipeline reads and writes: created when missing, grown when their source has grown, never shrunk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, TopicMetadata  # type: ignore[attr-defined]

from tidegate.clock import Deadline
from tidegate.errors import BrokerUnavailable, ConfigError

_POLL = 0.1
FOREVER_KEPT = {"retention.ms": "-1"}  # dead letters and late records: somebody has to look at them first


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that must exist. `config` is applied on creation only: what an operator has changed since stays."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


async def ensure_topics(
    confluent_options: Mapping[str, Any], specs: Sequence[TopicSpec], *, replication: int = -1, within: float = 30.0
) -> dict[str, int]:
    """Create what is missing, add partitions where there are too few, wait until every partition has a leader.

    Returns the partitions each topic now has. `replication` -1: the broker's default. `within` is in seconds.
    Raises BrokerUnavailable, or ConfigError for a topic that cannot be created as asked.
    """
    return await asyncio.to_thread(_ensure_topics, confluent_options, specs, replication, within)


async def partition_counts(
    confluent_options: Mapping[str, Any], topics: Sequence[str], *, within: float = 30.0
) -> dict[str, int]:
    """Partitions of each topic. Raises ConfigError for one that does not exist, BrokerUnavailable."""
    return await asyncio.to_thread(_partition_counts, confluent_options, topics, within)


def _partition_counts(options: Mapping[str, Any], topics: Sequence[str], timeout: float) -> dict[str, int]:
    found = _metadata(AdminClient(dict(options)), Deadline(timeout))
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
    deadline, admin = Deadline(timeout), AdminClient(dict(options))
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
    return _wait_for_leaders(admin, specs, deadline)


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
