"""Dead letters to a topic, in the batch's transaction: confirmed with the results or not written at all."""

from __future__ import annotations

from collections.abc import Sequence

from dlq.letter import Letter
from dlq.placement import target_partition
from dlq.writing import LetterWriter
from tidegate.config.queue import DeadLetterConfig
from tidegate.record import OutRow, TopicPartition


class KafkaPublisher:
    """Rows for the dead-letter topic, keyed as the record was.

    Their Kafka timestamp is the time of the failure, so that the topic's retention counts from there: a record from
    2013 that fails today would be deleted at once by its own. `packed`: with headers in Kafka's form.
    """

    def __init__(self, topic: str, config: DeadLetterConfig, *, packed: bool) -> None:
        self._topic, self._config, self._packed = topic, config, packed

    @property
    def topic(self) -> str:
        return self._topic

    def rows(self, letters: Sequence[Letter], source: TopicPartition, partitions: int) -> list[OutRow]:
        rows, writer = list[OutRow](), LetterWriter(self._config)
        write = writer.packed if self._packed else writer.record
        for letter in letters:
            key, value, headers = write(letter)
            partition = target_partition(source, key, partitions)
            rows.append(OutRow(self._topic, partition, key, value, headers, letter.kind.last_failure))
        return rows
