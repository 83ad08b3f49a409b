"""Dead letters and late records go to predictable partitions."""

from __future__ import annotations

from dlq.placement import target_partition
from tidegate.record import TopicPartition


def test_same_partition() -> None:
    """A target with as many partitions as the source keeps every record in the partition of the same number."""
    assert [target_partition(TopicPartition("t", p), b"any", 6) for p in range(6)] == list(range(6))


def test_fewer_partitions() -> None:
    """A target with fewer partitions gets keyed records as Kafka's default partitioner would put them."""
    # org.apache.kafka.common.utils.Utils.murmur2("foobar") = -790332482, as in Kafka's own UtilsTest.
    assert target_partition(TopicPartition("t", 7), b"foobar", 5) == (-790332482 & 0x7FFFFFFF) % 5


def test_without_a_key() -> None:
    """Records without a key that find no partition of their number go by their source partition."""
    assert [target_partition(TopicPartition("t", p), None, 2) for p in range(5)] == [0, 1, 0, 1, 0]
