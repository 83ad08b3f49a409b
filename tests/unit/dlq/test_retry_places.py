"""Where a record that waits goes back to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from dlq.retry.agent import RetryAgent
from tests.unit.dlq.dead_letters import plan
from tidegate.errors import BrokerUnavailable
from tidegate.record import TopicPartition


class Cluster:
    """A consumer whose brokers say that the source topic has two partitions, or that they cannot say."""

    def __init__(self) -> None:
        self.error: KafkaError | None = None

    def list_topics(self, topic: str, timeout: float) -> Any:
        partitions = {} if self.error else {0: None, 1: None}
        return SimpleNamespace(topics={topic: SimpleNamespace(error=self.error, partitions=partitions)})


def waits_for(partition: int) -> Any:
    """A record in a retry topic."""
    says = [("tidegate.retry.due", b"5"), ("tidegate.retry.topic", b"flights")]
    headers = [*says, ("tidegate.retry.partition", b"%d" % partition)]
    return SimpleNamespace(
        topic=lambda: "flights..retry.1s", partition=lambda: 0, offset=lambda: 3, headers=lambda: headers
    )


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE])
def test_a_record_waits_on_while_nobody_knows_of_its_source_topic(code: int) -> None:
    """What is taken for none of ours is never sent, and deleted from its topic: no record is, because of a broker that has just
    started, say."""
    agent, cluster = RetryAgent(plan(source={"topics": ["flights"]}).pipeline), Cluster()
    cluster.error = KafkaError(code)
    with pytest.raises(BrokerUnavailable, match="flights"):
        agent._target(cast(Any, cluster), waits_for(1))
    cluster.error = None
    assert agent._target(cast(Any, cluster), waits_for(1)) == TopicPartition("flights", 1)
    assert agent._target(cast(Any, cluster), waits_for(7)) is None
