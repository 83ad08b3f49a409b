"""Where dead letters may be replayed to: the pipeline's source topics and `deadLetters.replayTargets`. Nowhere else,
whatever a letter's headers say of its origin: anybody may have written them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]  # its stubs do not re-export them

from dlq.dialects import UNKNOWN, Origin
from dlq.placement import target_partition
from tidegate.config.base import did_you_mean
from tidegate.config.kafka import Kafka, confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError
from tidegate.reach import quiet, why_unreachable
from tidegate.record import TopicPartition

_TIMEOUT = 15.0  # seconds
QUIET: dict[str, Any] = {"logger": quiet("dlq.replay"), "log_level": 4}
"""For clients whose errors are raised and need not be told on stderr, too: warnings only, to no handler."""


@dataclass(frozen=True, slots=True)
class Target:
    """`group`: whose offsets tell that a record has been read (None: nobody's). `max_bytes`: what the topic takes."""

    topic: str
    group: str | None
    partitions: int
    max_bytes: int


def allowed(pipeline: Pipeline) -> dict[str, str | None]:
    """The allow-list: topic → the consumer group that reads it."""
    listed = {target.topic: target.group for target in pipeline.dead_letters.replay_targets}
    own = {} if pipeline.source is None else dict.fromkeys(pipeline.source.topics, pipeline.pipeline_id)
    return {**listed, **own}


def require_allowed(pipeline: Pipeline, to: str) -> None:
    """Raises ConfigError."""
    groups = allowed(pipeline)
    if to not in groups:
        raise _not_allowed(to, groups)


class Targets:
    """The allow-list as the cluster has it now."""

    def __init__(self, pipeline: Pipeline, to: str | None = None) -> None:
        """`to`: all letters go there, once `require_there` has said that they may. Raises BrokerUnavailable."""
        groups = allowed(pipeline)
        self._pipeline, self._to = pipeline, to
        # What was sent to one that has left the file meanwhile is followed no more.
        self._groups = {to: groups.get(to)} if to is not None else groups
        self._targets = _look_up(pipeline.kafka, self._groups)
        self.max_bytes = min((target.max_bytes for target in self._targets.values()), default=1_048_588)
        """What the least of them takes as one record."""

    def require_there(self) -> None:
        """Raises ConfigError when all letters go to a topic that is not allowed (any more), or does not exist."""
        if self._to is None:
            return
        require_allowed(self._pipeline, self._to)
        if self._to not in self._targets:
            raise ConfigError("topic does not exist", field="--to", value=self._to, expected="a topic of this cluster")

    @property
    def topics(self) -> list[str]:
        """Those that are there."""
        return sorted(self._targets)

    def group_of(self, topic: str) -> str | None:
        """Also of a topic that is not there any more: what was sent to it has still been read by nobody else."""
        return self._groups.get(topic)

    def place(self, origin: Origin, key: bytes | None, *, key_is_new: bool) -> TopicPartition | str:
        """Where a letter goes, or why nowhere.

        Back to the partition it came from, so that the records of a key stay together; by its key if that is new.
        """
        topic = origin.topic if self._to is None else self._to
        target = self._targets.get(topic)
        if target is None:
            if topic == UNKNOWN or self._to is not None:
                return "it does not say where it came from; --to names a topic for it"
            if topic in self._groups:
                return f"it came from topic {topic!r}, which does not exist (any more); --to names another for it"
            return f"it came from topic {topic!r}, which is no source of this pipeline and not in deadLetters.replayTargets"
        # A partition that the topic does not have leaves the choice to the key.
        number = target.partitions if key_is_new and key is not None else max(0, origin.partition)
        return TopicPartition(topic, target_partition(TopicPartition(origin.topic, number), key, target.partitions))


def _look_up(kafka: Kafka, groups: dict[str, str | None]) -> dict[str, Target]:
    """Those that exist."""
    admin = AdminClient(confluent_options(kafka) | QUIET)
    try:
        found = admin.list_topics(timeout=_TIMEOUT).topics
        there = [name for name in groups if name in found and found[name].error is None]
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in there]
        configs = admin.describe_configs(resources, request_timeout=_TIMEOUT) if resources else {}
        limits = {resource.name: int(done.result()["max.message.bytes"].value) for resource, done in configs.items()}
    except KafkaException as error:
        raise why_unreachable(kafka, error.args[0].str()) from error
    return {name: Target(name, groups[name], len(found[name].partitions), limits[name]) for name in there}


def _not_allowed(to: str, groups: dict[str, str | None]) -> ConfigError:
    return ConfigError(
        "dead letters may not be replayed to this topic",
        field="--to",
        value=to,
        expected=", ".join(groups) or "a pipeline with source topics",
        hint=did_you_mean(to, list(groups)) or "deadLetters.replayTargets in the pipeline file allows further ones",
    )
