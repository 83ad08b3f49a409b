"""Which partition of its topic a dead letter or a late record goes to."""

from __future__ import annotations

from tidegate.record import TopicPartition


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
