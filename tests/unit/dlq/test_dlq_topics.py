"""Dead letters and late records go to predictable topics and partitions."""

from __future__ import annotations

import pytest

from dlq.topics import dead_letter_topic, late_topic, target_partition
from tests.unit.dlq.dead_letters import plan
from tidegate.record import TopicPartition


def test_default_names() -> None:
    """Without a setting the topics are named after the pipeline."""
    pipeline = plan().pipeline
    assert (dead_letter_topic(pipeline), late_topic(pipeline)) == ("flights.dlq", "flights.late")


def test_given_names() -> None:
    """A name in the pipeline file is used as it is."""
    pipeline = plan(
        errorHandling={"deadLetterQueue": {"type": "kafka", "config": {"topic": "failed"}}},
        lateData={"topic": "behind"},
    ).pipeline
    assert (dead_letter_topic(pipeline), late_topic(pipeline)) == ("failed", "behind")


@pytest.mark.parametrize("queue", [{"type": "log"}, {"type": "none"}, {"enabled": False}])
def test_no_topic(queue: dict[str, object]) -> None:
    """Pipelines that log, stop, or have no queue have no dead-letter topic."""
    assert dead_letter_topic(plan(errorHandling={"deadLetterQueue": queue}).pipeline) is None


@pytest.mark.parametrize("strategy", ["drop", "logAndDrop", "sendToDLQ"])
def test_no_late_topic(strategy: str) -> None:
    """Only separateStream has a late topic."""
    assert late_topic(plan(lateData={"strategy": strategy}).pipeline) is None


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
