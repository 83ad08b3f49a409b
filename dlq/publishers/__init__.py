"""Where dead letters go: one publisher for each `deadLetterQueue.type`."""

from __future__ import annotations

from dlq.publishers.base import Publisher
from dlq.publishers.kafka import KafkaPublisher
from dlq.publishers.log import LogPublisher
from dlq.publishers.none import NonePublisher
from tidegate.config.topics import dead_letter_topic
from tidegate.stages.plan import Plan


def open_publisher(plan: Plan) -> Publisher:
    """The publisher that the pipeline asks for."""
    pipeline = plan.pipeline
    queue = pipeline.error_handling.dead_letter_queue
    topic = dead_letter_topic(pipeline)
    if topic is not None:
        return KafkaPublisher(topic, queue.config)
    if queue.enabled and queue.type == "log":
        return LogPublisher()
    return NonePublisher()


__all__ = ["KafkaPublisher", "LogPublisher", "NonePublisher", "Publisher", "open_publisher"]
