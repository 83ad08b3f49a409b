"""Which topics dead letters and late records go to, and which partition of them."""

from __future__ import annotations

from tidegate.config.pipeline import Pipeline
from tidegate.record import TopicPartition


def dead_letter_topic(pipeline: Pipeline) -> str | None:
    """The dead-letter topic, or None when the pipeline has none (type `log` or `none`, or not enabled)."""
    queue = pipeline.error_handling.dead_letter_queue
    if not queue.enabled or queue.type != "kafka":
        return None
    return queue.config.topic or f"{pipeline.pipeline_id}.dlq"


def late_topic(pipeline: Pipeline) -> str | None:
    """The topic of late records, or None when the strategy is another than `separateStream`."""
    if pipeline.late_data.strategy != "separateStream":
        return None
    return pipeline.late_data.topic or f"{pipeline.pipeline_id}.late"


def target_partition(source: TopicPartition, key: bytes | None, partitions: int) -> int:
    """Where a record of `source` goes in a topic of `partitions` partitions.

    The partition of the same number where there is one, so that order is kept as it was. Else by the key, as Kafka's
    default partitioner does it (murmur2), so that a key's records stay together; without a key by the source partition.
    """
    if source.partition < partitions:
        return source.partition
    if key is None:
        return source.partition % partitions
    from aiokafka.partitioner import murmur2

    return int(murmur2(key) & 0x7FFFFFFF) % partitions
