"""Kafka for tests: where the broker comes from, and the topics of one test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.harness import wait_until
from tests.providers.availability import docker_answers, or_unavailable
from tidegate.local.kafka import EmbeddedKafka
from tidegate.local.process import tail

if TYPE_CHECKING:
    from testcontainers.community.kafka import KafkaContainer

_TIMEOUT = 30.0  # s; creating a topic takes milliseconds, a busy two-core machine some seconds


@dataclass(frozen=True, slots=True)
class Broker:
    """The run's broker. `own`: the process, if this run has started one."""

    bootstrap_servers: str
    own: EmbeddedKafka | None = None

    def require_alive(self) -> None:
        """Fail with what a broker that has ended said last (a full disk, say), not with a timeout in every test."""
        if self.own is not None and not self.own.running:
            pytest.fail(f"the run's broker has ended; {self.own.log} ends with:\n{tail(self.own.log)}", pytrace=False)


@contextmanager
def run_broker(directory: Path) -> Iterator[Broker]:
    """`directory`: where an embedded one keeps its data."""
    if given := os.environ.get("TIDEGATE_TEST_KAFKA"):
        yield Broker(given)
    elif docker_answers():
        with kafka_container() as container:
            yield Broker(container.get_bootstrap_server())
    else:
        with embedded_kafka(directory) as server:
            yield Broker(server.bootstrap_servers, server)


def kafka_container() -> KafkaContainer:
    """One broker as the tests need it, not started."""
    from testcontainers.community.kafka import KafkaContainer

    container = KafkaContainer("confluentinc/cp-kafka:8.1.0").with_kraft()
    for name in ("TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "TRANSACTION_STATE_LOG_MIN_ISR"):
        container.with_env(f"KAFKA_{name}", "1")
    container.with_env("KAFKA_LOG_RETENTION_MS", "-1").with_env("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")
    return container.with_env("KAFKA_LOG_CLEANER_BACKOFF_MS", "200")


@contextmanager
def embedded_kafka(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[EmbeddedKafka]:
    """A running broker of this test's own. It looks for something to compact five times a second, not every 15 s."""
    server = EmbeddedKafka(directory, settings={"log.cleaner.backoff.ms": "200", **(settings or {})})
    with or_unavailable("kafka"):
        server.start()
    try:
        yield server
    finally:
        server.stop()


class KafkaTopics:
    """Fresh topics for one test, deleted after it."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        self._created: list[str] = []

    def topic(self, partitions: int = 1, config: Mapping[str, str] | None = None, *, name: str | None = None) -> str:
        """Create a topic (named `t-…`, unless `name` says otherwise) and return its name once it can be written to."""
        name = name or f"t-{uuid.uuid4().hex[:12]}"
        new = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
        for done in self._admin.create_topics([new], request_timeout=_TIMEOUT).values():
            done.result(_TIMEOUT)
        self._created.append(name)
        # The controller has made it then; what the broker says of its topics comes later, on a busy machine.
        wait_until(lambda: name in self._admin.list_topics(timeout=_TIMEOUT).topics, _TIMEOUT, f"{name} is there", 0.02)
        return name

    def delete(self) -> None:
        """Delete what was created; a broker that a test has left dead is no error."""
        if not self._created:
            return
        for done in self._admin.delete_topics(self._created, request_timeout=_TIMEOUT).values():
            try:
                done.result(_TIMEOUT)
            except KafkaException:
                continue  # already gone, or the broker is: the run's directory goes with it
