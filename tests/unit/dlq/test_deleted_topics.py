"""Whether a topic has been deleted, where the one who could say does not."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection

from dlq.replay.deleted import DeletedTopics
from tidegate.clock import ManualClock
from tidegate.config.kafka import Kafka
from tidegate.errors import BrokerUnavailable


class Cluster:
    """An admin client. `says`: what its broker says of every topic. Its user may not make topics."""

    def __init__(self) -> None:
        self.says: int | None = None

    def describe_topics(self, topics: TopicCollection, **options: Any) -> dict[str, Future[None]]:
        return {name: _answer(self.says) for name in topics.topic_names}  # type: ignore[attr-defined]  # C has it

    def create_topics(self, topics: list[Any], *, validate_only: bool, **options: Any) -> dict[str, Future[None]]:
        assert validate_only
        return {topic.topic: _answer(KafkaError.TOPIC_AUTHORIZATION_FAILED) for topic in topics}


def _answer(code: int | None) -> Future[None]:
    answer = Future[None]()
    if code is None:
        answer.set_result(None)
    else:
        answer.set_exception(KafkaException(KafkaError(code)))
    return answer


def test_a_user_who_may_not_make_topics_waits_for_brokers_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic is deleted when none of them has known it for ten minutes; an outage says nothing."""
    clock, cluster = ManualClock(), Cluster()
    deleted = DeletedTopics(Kafka(bootstrap_servers="127.0.0.1:1"), clock)
    monkeypatch.setattr(deleted, "_admin", cluster)
    cluster.says = KafkaError.UNKNOWN_TOPIC_OR_PART
    assert deleted.among({"flights"}) == frozenset()
    clock.advance(599)
    cluster.says = None
    assert deleted.among({"flights"}) == frozenset()
    cluster.says = KafkaError.UNKNOWN_TOPIC_OR_PART
    clock.advance(1)
    assert deleted.among({"flights"}) == frozenset(), "one of them had known it"
    clock.advance(600)
    assert deleted.among({"flights"}) == {"flights"}
    cluster.says = KafkaError._TIMED_OUT
    with pytest.raises(BrokerUnavailable, match="flights"):
        deleted.among({"flights"})
