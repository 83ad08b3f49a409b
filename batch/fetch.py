"""Records of one stretch of one partition, read by the executor itself and not by Spark's JVM.

Through the JVM every record was unpacked to a row, packed to Arrow, sent over a socket and unpacked again: with it a record
took 23 µs of processor time in all, without it 6. librdkafka reads in a thread of its own while the stages work on the
records before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import confluent_kafka
import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from tidegate.config.kafka import Kafka, confluent_options
from tidegate.errors import BrokerUnavailable, OffsetOutOfRange
from tidegate.headers import headers_of_all
from tidegate.reach import quiet
from tidegate.record import TopicPartition
from tidegate.stages.batch import RawBatch

BEGINNING: Final = confluent_kafka.OFFSET_BEGINNING
"""−2: the first record that is there; Spark writes it the same way."""

_SILENCE = 20.0  # seconds without a record or an end, before the broker is called unavailable
_MEETING = 2.0  # seconds; what a silent broker adds to those
_POLL = 0.1  # seconds; only where fewer records come than are asked for
_FIRST = 2_048  # records asked for while their size is not known
_QUEUED = 32_768  # KiB that are read ahead


@dataclass(frozen=True, slots=True)
class Stretch:
    """The offsets of one partition from `start` (or BEGINNING) to before `end`; not all of them need to be there."""

    tp: TopicPartition
    start: int
    end: int


class StretchReader:
    """One consumer for all stretches that an executor is given. Joins no group, commits nothing. Not for two threads."""

    def __init__(self, kafka: Kafka, group: str, most: int, most_bytes: int) -> None:
        """`most`, `most_bytes`: of a batch; the latter by the size of the records before."""
        self._servers, self._most, self._most_bytes = kafka.bootstrap_servers, most, most_bytes
        self._at_once = min(most, _FIRST)
        self._met: set[str] = set()
        self._consumer = Consumer(
            {
                **confluent_options(kafka),
                "group.id": group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": 8_388_608,
                # A request for the partition before, which nobody wants any more, is in the way of the first for this one.
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 10,
                "queued.min.messages": 100_000,
                "queued.max.messages.kbytes": _QUEUED,
                "logger": quiet("tidegate.batch.fetch"),
            }
        )

    def meet(self, topic: str) -> None:
        """Learn which brokers have its partitions: librdkafka, assigned one of a topic that it knows nothing of, asks, and looks
        at the answer half a second later. So it does still if nobody answers now."""
        if topic not in self._met:
            with suppress(KafkaException):
                self._consumer.list_topics(topic, timeout=_MEETING)
                self._met.add(topic)

    def read(self, stretch: Stretch) -> Iterator[RawBatch]:
        """In offset order. Raises OffsetOutOfRange when the log has lost the start, BrokerUnavailable."""
        tp = stretch.tp
        self.meet(tp.topic)
        self._consumer.assign([confluent_kafka.TopicPartition(tp.topic, tp.partition, stretch.start)])
        try:
            yield from self._batches(stretch)
        finally:
            self._consumer.unassign()

    def _batches(self, stretch: Stretch) -> Iterator[RawBatch]:
        silent, at = 0.0, max(stretch.start, 0)
        while at < stretch.end:
            messages = self._consume(min(self._at_once, stretch.end - at))
            silent = 0.0 if messages else silent + _POLL
            if silent >= _SILENCE:
                raise BrokerUnavailable(f"{self._servers} gave nothing for {_SILENCE:.0f} s, short of {stretch}")
            records, ended = self._records(messages, stretch)
            if records:
                at = int(records[-1].offset() or 0) + 1
                yield self._batch(stretch.tp, records)
            if ended:
                return

    def _consume(self, count: int) -> list[Message]:
        try:
            return list(self._consumer.consume(count, _POLL))
        except KafkaException as error:
            raise BrokerUnavailable(f"{self._servers}: {error.args[0].str()}") from error

    def _records(self, messages: Sequence[Message], stretch: Stretch) -> tuple[list[Message], bool]:
        """Those of the stretch, and whether it is over."""
        records: list[Message] = []
        for message in messages:
            if (error := message.error()) is None:
                if int(message.offset() or 0) >= stretch.end:
                    return records, True
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # Short of the stretch's end it is not the end: a broker that has just taken the partition over may know less
                # of it than the one that Spark asked, and what is behind would never be asked for again.
                if int(message.offset() or 0) >= stretch.end:
                    return records, True
            elif error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
                raise OffsetOutOfRange.of(stretch.tp, stretch.start, *self._bounds(stretch.tp))
            elif not error.retriable():
                raise BrokerUnavailable(f"{self._servers}: {error.str()}")
        return records, False

    def _bounds(self, tp: TopicPartition) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(
                confluent_kafka.TopicPartition(tp.topic, tp.partition), timeout=_SILENCE
            )
        except KafkaException as error:
            raise BrokerUnavailable(f"{self._servers}: {error.args[0].str()}") from error
        return int(low), int(high)

    def _batch(self, tp: TopicPartition, records: Sequence[Message]) -> RawBatch:
        raw = RawBatch.of(
            tp,
            [record.offset() for record in records],
            [record.timestamp()[1] for record in records],
            [record.key() for record in records],
            [record.value() for record in records],
            headers_of_all(records),
        )
        places = {(record.topic(), record.partition()) for record in (records[0], records[-1])}
        if places != {(tp.topic, tp.partition)} or (np.diff(raw.records.column(0).to_numpy()) <= 0).any():
            raise AssertionError(f"records of another partition, or out of order, among those of {tp}")
        size = max(1, raw.records.nbytes // len(records))
        self._at_once = max(1, min(self._most, self._most_bytes // size))
        return raw
