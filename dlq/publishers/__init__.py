"""Where dead letters go: one publisher for each place.

Those for S3 go to a topic first, as those for Kafka do, in the batch's transaction; dlq/s3/uploader.py takes them from there.
"""

from __future__ import annotations

from dlq.publishers.base import Publisher
from dlq.publishers.kafka import KafkaPublisher
from dlq.publishers.log import LogPublisher
from dlq.publishers.none import NonePublisher
from dlq.publishers.several import SeveralPublishers
from dlq.publishers.stop import StopPublisher
from tidegate.config.topics import letters_topic
from tidegate.stages.plan import Plan


def open_publisher(plan: Plan, *, packed: bool = False) -> Publisher:
    """The publisher that the pipeline asks for. `packed`: its rows have their headers in Kafka's form, for a producer that takes
    them so; else as a client of Kafka takes them."""
    queue = plan.pipeline.error_handling.dead_letter_queue
    if not queue.enabled:
        return StopPublisher()
    topic = letters_topic(plan.pipeline)
    publishers: list[Publisher] = [] if topic is None else [KafkaPublisher(topic, queue.config, packed=packed)]
    if queue.goes_to("log"):
        publishers.append(LogPublisher())
    if queue.goes_to("none"):
        publishers.append(NonePublisher())
    return publishers[0] if len(publishers) == 1 else SeveralPublishers(publishers)


__all__ = ["KafkaPublisher", "Publisher", "StopPublisher", "open_publisher"]
