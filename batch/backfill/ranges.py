"""Where a task reads its split of the log from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import Message

from batch.backfill.splits import Split
from dlq.late_reading import LateSource
from tidegate.config.kafka import Kafka
from tidegate.config.pipeline import Pipeline
from tidegate.headers import headers_of
from tidegate.record import TopicPartition
from tidegate.stages.batch import RawBatch
from tidegate.store.reading import TopicReader

_CHUNK = 20_000  # records that go through the stages at a time


class LogRange(Protocol):
    """Sent to the tasks: it holds no connection."""

    def bounds(self, tps: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """Per partition the first offset that is there, and the one after the last, which may come before what was read of it;
        of one whose log is gone nothing."""

    def read(self, split: Split, most: int) -> Iterator[RawBatch]:
        """The split's records in offset order, at most `most` at a time."""


@dataclass(frozen=True, slots=True)
class KafkaRange:
    """The source topics. `topics`: those in the file. Raises BrokerUnavailable, ConfigError."""

    kafka: Kafka
    group: str
    topics: tuple[str, ...]

    @classmethod
    def of(cls, pipeline: Pipeline, purpose: str) -> KafkaRange:
        topics = pipeline.source.topics if pipeline.source is not None else ()
        return cls(pipeline.kafka, f"{pipeline.pipeline_id}-{purpose}", topics)

    def bounds(self, tps: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """A topic is gone only if it has left the file, too: of another one a broker may not have heard yet, and windows
        recomputed without it would lack its records."""
        with TopicReader(self.kafka, self.group) as reader:
            there = {topic: reader.partitions(topic) for topic in {tp.topic for tp in tps} - set(self.topics)}
            return {tp: reader.bounds(tp) for tp in tps if tp.topic in self.topics or tp.partition in there[tp.topic]}

    def read(self, split: Split, most: int) -> Iterator[RawBatch]:
        with TopicReader(self.kafka, self.group) as reader:
            reader.start({split.tp: split.start})
            for records in chunked(_before(reader.to_the_end(), split), min(most, _CHUNK)):
                yield RawBatch.of_records(split.tp, records)


def record_of(message: Message) -> LateSource:
    """A record of the source as it is."""
    tp = TopicPartition(message.topic() or "", message.partition() or 0)
    key, value = message.key(), message.value()
    return LateSource(
        tp, message.offset() or 0, message.timestamp()[1], key, value, tuple(headers_of(message)), (), False
    )


def chunked(records: Iterable[LateSource], size: int) -> Iterator[list[LateSource]]:
    chunk: list[LateSource] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _before(messages: Iterable[Message], split: Split) -> Iterator[LateSource]:
    for message in messages:
        if (message.offset() or 0) >= split.end:
            return
        yield record_of(message)
