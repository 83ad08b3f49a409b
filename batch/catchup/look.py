"""How a pipeline is doing, as the store, the log and the group say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from batch.catchup.needs import for_spark
from batch.catchup.policy import Situation
from batch.needs import require_runnable
from batch.source import lags
from tidegate.config.kafka import confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.errors import BrokerUnavailable
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import compile_plan
from tidegate.store import open_store
from tidegate.store.base import Store
from tidegate.store.progress import source_topics
from tidegate.store.reading import TopicReader

_ANSWER = 10.0  # seconds


@contextmanager
def opened(pipeline: Pipeline) -> Iterator[Lookout]:
    """A lookout on a pipeline that fits the second engine; its tables are made if they are missing.

    Raises ConfigError, DependencyError.
    """
    stripped = for_spark(pipeline)
    store = open_store(compile_plan(stripped), require_runnable(stripped))
    try:
        Guard("store", pipeline.error_handling).call(store.prepare)
        with TopicReader(pipeline.kafka, f"{pipeline.pipeline_id}-fallback") as reader:
            yield Lookout(pipeline, store, reader)
    finally:
        store.close()


class Lookout:
    """Looks at one pipeline. The store must be prepared."""

    def __init__(self, pipeline: Pipeline, store: Store, reader: TopicReader) -> None:
        self._pipeline, self._store, self._reader = pipeline, store, reader
        self._admin = AdminClient({**confluent_options(pipeline.kafka), "log_level": 0})

    def look(self) -> Situation:
        """Raises DependencyError."""
        found = {row.tp: row.state for row in self._store.partitions()}
        sources = [
            TopicPartition(topic, n) for topic in source_topics(self._pipeline) for n in self._reader.partitions(topic)
        ]
        states = {tp: found.get(tp, PartitionState()) for tp in sources}
        lag = sum(lags(states, self._reader).values())
        asked = self._pipeline.fallback.lag_seconds is not None and lag > 0
        return Situation(lag, self._oldest(states) if asked else None, self._workers(), self._store.held_by())

    def _oldest(self, states: dict[TopicPartition, PartitionState]) -> float | None:
        """By Kafka's timestamps, which are the producers' or the broker's."""
        next_ones: dict[TopicPartition, int] = {}
        for tp, state in states.items():
            low, high = self._reader.bounds(tp)
            if (wanted := max(low, state.upto + 1)) < high:
                next_ones[tp] = wanted
        first = self._reader.first_timestamps(next_ones)
        return time.time() - min(first.values()) / 1000 if first else None

    def _workers(self) -> int:
        group = self._pipeline.pipeline_id
        try:
            described = self._admin.describe_consumer_groups([group], request_timeout=_ANSWER)[group].result(_ANSWER)
        except (KafkaException, TimeoutError) as error:
            raise BrokerUnavailable(f"who is in group {group!r} is not known: {error}") from error
        return len(described.members)
