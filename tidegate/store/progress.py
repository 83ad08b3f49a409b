"""Where a pipeline is: its partition rows, from the store or, without one, from the state changelog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import PostgresSink, SqliteSink
from tidegate.config.topics import changelog_topic
from tidegate.errors import ConfigError
from tidegate.record import TopicPartition
from tidegate.stages.plan import compile_plan
from tidegate.store import open_store
from tidegate.store.base import PartitionRow
from tidegate.store.late import LateCounts
from tidegate.store.reading import TopicReader
from tidegate.store.rows import PARTITION_KEY, decode_state

_TAIL = 1_000  # offsets; each batch ends with its partition row, so that the last one is near the end


@dataclass(frozen=True, slots=True)
class Progress:
    """`source`: where it was read. `open_windows`, and what windows miss (`late`): only a store can tell them. Rows by topic and
    partition."""

    source: str
    rows: list[PartitionRow]
    open_windows: Mapping[TopicPartition, int] = field(default_factory=dict)
    late: Mapping[TopicPartition, LateCounts] = field(default_factory=dict)


def source_topics(pipeline: Pipeline) -> tuple[str, ...]:
    """Raises ConfigError for a pipeline file that names no source."""
    if pipeline.source is None:
        raise ConfigError("this pipeline has no source", field="source", expected="topics to read")
    return pipeline.source.topics


def source_partitions(pipeline: Pipeline, reader: TopicReader) -> list[TopicPartition]:
    """All partitions of the source topics. Raises ConfigError for a missing topic, BrokerUnavailable."""
    numbers = {topic: reader.partitions(topic) for topic in source_topics(pipeline)}
    if missing := [topic for topic, found in numbers.items() if not found]:
        raise ConfigError(
            "this topic does not exist",
            field="source.topics",
            value=missing[0],
            expected="a topic of this cluster",
            hint="check the name, or create it with the partitions you want: tidegate does not create source topics",
        )
    return [TopicPartition(topic, number) for topic, found in numbers.items() for number in found]


def not_read(pipeline: Pipeline, tp: TopicPartition) -> str | None:
    """Why nobody reads the partition any more, as far as the file says it."""
    return None if pipeline.reads(tp.topic) else "topic not in the file"


def watermark(pipeline: Pipeline, row: PartitionRow) -> int | None:
    """The partition's watermark in ms; None before its first record or without event time."""
    if pipeline.event_time is None or row.state.high_water is None:
        return None
    return row.state.high_water - pipeline.event_time.delay


def read_progress(pipeline: Pipeline, reader: TopicReader) -> Progress:
    """From the first SQL sink, which has the final say where there is one; else from the changelog.

    Raises StoreUnavailable or BrokerUnavailable.
    """
    return stored_progress(pipeline) or Progress("changelog", _changelog_rows(pipeline, reader))


def stored_progress(pipeline: Pipeline) -> Progress | None:
    """From the first SQL sink; None without one. Raises StoreUnavailable."""
    stores = [sink for sink in pipeline.sinks if isinstance(sink, PostgresSink | SqliteSink)]
    if not stores:
        return None
    store = open_store(compile_plan(pipeline), stores[0])
    try:
        rows = store.partitions()
        open_windows = store.open_windows({row.tp: watermark(pipeline, row) for row in rows})
        late = {account.tp: account.total for account in store.late_accounts()}
        return Progress(stores[0].name, rows, open_windows, late)
    finally:
        store.close()


def _changelog_rows(pipeline: Pipeline, reader: TopicReader) -> list[PartitionRow]:
    """The last partition row of each partition of each changelog; there is no epoch and no owner in it."""
    logs = {
        TopicPartition(changelog_topic(pipeline.pipeline_id, topic), partition): TopicPartition(topic, partition)
        for topic in source_topics(pipeline)
        for partition in reader.partitions(changelog_topic(pipeline.pipeline_id, topic))
    }
    found = _last_rows(reader, logs)
    return [PartitionRow(logs[log], decode_state(found[log]), 0, "") for log in sorted(found)]


def _last_rows(reader: TopicReader, logs: Iterable[TopicPartition]) -> dict[TopicPartition, bytes]:
    """By looking at the end of each log, and further and further back where no row is found."""
    found: dict[TopicPartition, bytes] = {}
    missing, back = set(logs), _TAIL
    while missing:
        bounds = {log: reader.bounds(log) for log in missing}
        starts = {log: max(low, high - back) for log, (low, high) in bounds.items()}
        reader.start(starts)
        for message in reader.to_the_end():
            topic, partition, value = message.topic(), message.partition(), message.value()
            if message.key() == PARTITION_KEY and value is not None and topic is not None and partition is not None:
                found[TopicPartition(topic, partition)] = bytes(value)
        missing = {log for log, start in starts.items() if log not in found and start > bounds[log][0]}
        back *= 10
    return found
