"""Who works on a pipeline, as Kafka's group coordinator knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from tidegate.config.kafka import confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.reach import quiet, why_unreachable
from tidegate.store.progress import source_topics


@dataclass(frozen=True, slots=True)
class Member:
    """One worker process. `partitions`: of the source topics, that it has."""

    client: str
    host: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Group:
    """`state`: stable, empty, dead (there is none), or on the way between them."""

    state: str
    members: tuple[Member, ...] = ()


def read_group(pipeline: Pipeline, answer: float) -> Group:
    """The pipeline's workers. `answer`: seconds for the answer. Raises BrokerUnavailable, ConfigError."""
    source = source_topics(pipeline)
    options: dict[str, Any] = {**confluent_options(pipeline.kafka), "logger": quiet("tidegate.group")}
    admin = AdminClient(options)
    name = pipeline.pipeline_id
    try:
        found = admin.describe_consumer_groups([name], request_timeout=answer)[name].result(answer + 1)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return Group("dead")
        raise why_unreachable(pipeline.kafka, error.args[0].str(), answer) from error
    members = [
        Member(
            one.client_id,
            one.host.lstrip("/"),
            sum(tp.topic in source for tp in (one.assignment.topic_partitions if one.assignment else ())),
        )
        for one in found.members
    ]
    state = found.state if isinstance(found.state, ConsumerGroupState) else ConsumerGroupState.UNKNOWN
    return Group(state.name.lower().replace("_", " "), tuple(sorted(members, key=lambda one: (one.host, one.client))))
