"""Where dead letters go: one publisher for each `deadLetterQueue.type`."""

from __future__ import annotations

from dlq.publishers.base import Publisher
from dlq.publishers.kafka import KafkaPublisher
from dlq.publishers.log import LogPublisher
from dlq.publishers.none import NonePublisher
from dlq.topics import dead_letter_topic
from tidegate.errors import ConfigError
from tidegate.stages.plan import Plan


def open_publisher(plan: Plan) -> Publisher:
    """The publisher that the pipeline asks for. Raises ConfigError when the queue is on another cluster."""
    pipeline = plan.pipeline
    queue = pipeline.error_handling.dead_letter_queue
    topic = dead_letter_topic(pipeline)
    if topic is not None:
        _check_cluster(pipeline.kafka.bootstrap_servers, queue.config.bootstrap_servers)
        return KafkaPublisher(topic, queue.config)
    if queue.enabled and queue.type == "log":
        return LogPublisher()
    return NonePublisher()


def _check_cluster(pipeline: str, queue: str | None) -> None:
    """Two lists of brokers that share none are two clusters: a transaction cannot span them."""
    if queue is None or not _servers(pipeline).isdisjoint(_servers(queue)):
        return
    raise ConfigError(
        "the dead-letter topic must be on the pipeline's own cluster",
        field="errorHandling.deadLetterQueue.config.bootstrap.servers",
        value=queue,
        expected=f"a broker of kafka.bootstrapServers ({pipeline}), or nothing",
        hint="dead letters are written in the same transaction as the results, and a transaction has one cluster",
    )


def _servers(text: str) -> set[str]:
    return {server.strip() for server in text.split(",")}


__all__ = ["KafkaPublisher", "LogPublisher", "NonePublisher", "Publisher", "open_publisher"]
