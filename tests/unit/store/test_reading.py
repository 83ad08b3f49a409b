"""What a reader of topics does about a broker that is not quite there, without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tidegate.config.kafka import Kafka
from tidegate.errors import BrokerUnavailable
from tidegate.record import TopicPartition
from tidegate.store.reading import TopicReader


class Moving:
    """librdkafka's consumer while a coordinator moves, which no broker does at will. It answers the second time."""

    def __init__(self, code: int, *, of_the_partition: bool = False) -> None:
        self.code, self.asked, self._of_the_partition = code, 0, of_the_partition

    def committed(self, tps: list[Any], timeout: float) -> list[Any]:
        self.asked += 1
        if self.asked == 2:
            return [SimpleNamespace(topic="t", partition=0, offset=7, error=None)]
        error = KafkaError(self.code)
        if self._of_the_partition:
            return [SimpleNamespace(topic="t", partition=0, offset=-1001, error=error)]
        raise KafkaException(error)


@pytest.mark.slow
@pytest.mark.parametrize("of_the_partition", [False, True])
def test_a_coordinator_that_moves_is_asked_again(of_the_partition: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a broker which has just started; one that never knows is an outage, as is at once any other failure. It may
    say so of each partition alone: that nothing was committed there is not what it says then."""
    tp = TopicPartition("t", 0)
    with TopicReader(Kafka(bootstrap_servers="127.0.0.1:1"), "p", answer=0.5) as reader, monkeypatch.context() as patch:
        moving = Moving(KafkaError.NOT_COORDINATOR, of_the_partition=of_the_partition)
        patch.setattr(reader, "_consumer", moving)
        assert reader.committed([tp]) == {tp: 7}
        with pytest.raises(BrokerUnavailable):
            reader.committed([tp])
        assert moving.asked > 3
        patch.setattr(reader, "_consumer", other := Moving(KafkaError._TRANSPORT, of_the_partition=of_the_partition))
        with pytest.raises(BrokerUnavailable):
            reader.committed([tp])
        assert other.asked == 1
