"""Where there is no index: what the dead-letter topics hold, indexed into a file that lives as long as a command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from dlq.index.database import IndexDatabase
from dlq.index.letters import Row, index_row
from dlq.index.masking import Masker
from dlq.index.writer import IndexWriter
from dlq.reader import Placed, read_records
from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import dead_letter_topic, indexed_topics
from tidegate.errors import ConfigError
from tidegate.record import TopicPartition

_CHUNK = 5_000  # records of a transaction


def index_topics(pipeline: Pipeline, database: IndexDatabase) -> None:
    """All dead letters of the pipeline's topics, masked as an agent masks them, into an index that is empty.

    Raises ConfigError when a topic does not exist or there is none, BrokerUnavailable.
    """
    topics = indexed_topics(pipeline)
    if not topics:
        raise _no_topic(pipeline)
    own, masker, writer = dead_letter_topic(pipeline), Masker(pipeline.dead_letters.masking), IndexWriter(database)
    for topic in topics:
        field = "errorHandling.deadLetterQueue.config.topic" if topic == own else "deadLetters.topics"
        for chunk in _chunks(read_records(pipeline.kafka, topic, field=field)):
            by_partition: dict[int, list[Row]] = {}
            for record in chunk:
                row = index_row(record, TopicPartition(topic, record.partition), masker)
                by_partition.setdefault(record.partition, []).append(row)
            for partition, rows in by_partition.items():
                writer.write(TopicPartition(topic, partition), rows, rows[-1]["dlq_offset"])


def _chunks(records: Iterable[Placed]) -> Iterator[list[Placed]]:
    rest = iter(records)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def _no_topic(pipeline: Pipeline) -> ConfigError:
    queue = pipeline.error_handling.dead_letter_queue
    return ConfigError(
        "the dead letters of this pipeline are not on Kafka, so they cannot be read back",
        field="errorHandling.deadLetterQueue.type" if queue.enabled else "errorHandling.deadLetterQueue.enabled",
        value=", ".join(queue.types) if queue.enabled else False,
        expected="type kafka",
        hint="`tidegate dlq import` brings those in S3 into the index" if queue.goes_to("s3") else None,
    )
