"""What is read of the dead-letter topics for a replay."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from dlq.replay.follow import DeadLetterTail
from tidegate.config.kafka import Kafka
from tidegate.errors import BrokerUnavailable
from tidegate.headers import REPLAY_JOB
from tidegate.record import TopicPartition

TP = TopicPartition("flights.dlq", 0)


class Cluster:
    """A consumer whose brokers say where the topic ends, or `error` of the topic."""

    def __init__(self) -> None:
        self.error: int | None = None

    def list_topics(self, topic: str, timeout: float) -> Any:
        error = None if self.error is None else KafkaError(self.error)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=error, partitions={} if error else {0: None})})

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        return 0, 7

    def close(self) -> None: ...


@pytest.fixture
def tail(monkeypatch: pytest.MonkeyPatch) -> DeadLetterTail:
    made = DeadLetterTail(Kafka(bootstrap_servers="127.0.0.1:1"), [TP.topic], "job")
    made._ends.close()
    monkeypatch.setattr(made, "_ends", Cluster())
    return made


def test_a_topic_that_brokers_do_not_know_for_the_moment_has_not_been_read_to_its_end(tail: DeadLetterTail) -> None:
    """Else what came back as a dead letter would be called accepted. One that was never there has nothing to be read."""
    ends: Any = tail._ends
    ends.error = KafkaError.UNKNOWN_TOPIC_OR_PART
    assert tail.ends() == {}
    ends.error = KafkaError.LEADER_NOT_AVAILABLE
    with pytest.raises(BrokerUnavailable, match=r"flights\.dlq"):
        tail.ends()
    ends.error = None
    assert tail.ends() == {TP: 7}
    tail.start({TP: 5})
    ends.error = KafkaError.UNKNOWN_TOPIC_OR_PART
    with pytest.raises(BrokerUnavailable, match=r"flights\.dlq"):
        tail.ends()
    tail.close()


def test_a_forged_position_ends_nothing(tail: DeadLetterTail) -> None:
    """Anybody can write the header, with as many digits as a record has room for."""
    for position, found in (("9" * 5_000, []), ("7", [7])):
        message: Any = SimpleNamespace(
            topic=lambda: TP.topic, partition=lambda: 0, offset=lambda: 1, key=lambda: None, value=lambda: None,
            timestamp=lambda: (1, 5), headers=lambda position=position: [(REPLAY_JOB, f"job/{position}".encode())],
        )  # fmt: skip
        tail._look_at(message)
        assert list(tail.take()) == found
    tail.close()
