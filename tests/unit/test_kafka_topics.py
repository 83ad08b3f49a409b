"""The topics that tests are given."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from tests.providers import kafka
from tests.providers.kafka import KafkaTopics


class LateToHear:
    """The admin client of a broker that says so of a topic of which it has not heard from the controller yet."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.made: list[str] = []
        self.asked = 0

    def create_topics(self, topics: list[Any], **options: Any) -> dict[str, Future[None]]:
        done = Future[None]()
        done.set_result(None)
        self.made += [topic.topic for topic in topics]
        return dict.fromkeys(self.made, done)

    def list_topics(self, **options: Any) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(topics=dict.fromkeys(self.made) if self.asked > 3 else {})


def test_a_topic_is_there_for_whoever_asks_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test is given its topic when the broker tells of it, which can be after the controller has made it: one in a hundred
    was not there for the command that asked next, on a busy machine."""
    monkeypatch.setattr(kafka, "AdminClient", LateToHear)
    topics = KafkaTopics("nowhere:1")
    name = topics.topic()
    # Of the broker as it was at first, three answers in a row would not have it.
    assert name in topics._admin.list_topics(timeout=1).topics
