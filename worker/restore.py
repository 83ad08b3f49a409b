"""Bulk reading of a changelog partition, from an offset to its end, by a confluent-kafka consumer in a thread of its
own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from tidegate.clock import Deadline
from tidegate.errors import BrokerUnavailable

Apply = Callable[[list[bytes], list[bytes | None], int], None]

_CHUNK = 10_000  # records per call into librdkafka, and per write of the state
_POLL = 0.1  # seconds: `consume` waits so long for a full chunk, at the end of the log too
_TURN = 1.0  # seconds that one question may take before it is asked whether the answer is still wanted
_SILENCE = 30.0  # seconds without a record, an end or an answer: the broker is away

# What a broker that is away says; it may come back.
_AWAY = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)
_BULK = {
    "group.id": "tidegate-restore",  # asked for by the client, never joined: partitions are assigned by hand
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "enable.partition.eof": True,  # also sent behind control records and aborted transactions, where no record comes
    "auto.offset.reset": "error",
    "fetch.message.max.bytes": 2 << 20,
    "fetch.wait.max.ms": 50,
    "queued.max.messages.kbytes": 4 << 10,
    "queued.min.messages": 50_000,
    "check.crcs": False,
}


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. `end_offset`: the offset after the last record that could be read.

    `ahead`: `from_offset` was behind the end of the log, nothing was read: the local state is of another log. Wipe it
    and restore from 0.
    """

    records: int
    seconds: float
    end_offset: int
    ahead: bool = False


async def restore(
    confluent_options: Mapping[str, Any],
    topic: str,
    partition: int,
    from_offset: int,
    apply: Apply,
    in_thread: Callable[[Callable[[], Restored]], Awaitable[Restored]],
) -> Restored:
    """Read every committed record from `from_offset` (or the log's start, if that is later) to the log's end.

    `apply(keys, values, last_offset)` is called in the thread, in order, for chunks of up to 10 000 records; values
    of null are deletions. Raises BrokerUnavailable, and whatever `apply` raises. On cancellation the thread ends at the
    next chunk: nobody may close the database before.
    """
    stop = threading.Event()
    try:
        return await in_thread(lambda: _restore(confluent_options, topic, partition, from_offset, apply, stop))
    except asyncio.CancelledError:
        stop.set()
        raise


def _restore(
    options: Mapping[str, Any], topic: str, partition: int, from_offset: int, apply: Apply, stop: threading.Event
) -> Restored:
    started = monotonic()
    consumer = Consumer({**options, **_BULK})
    try:
        target = KafkaTopicPartition(topic, partition)
        low, end = _watermarks(consumer, target, stop)
        if from_offset > end:
            return Restored(0, monotonic() - started, end, ahead=True)
        start = max(low, from_offset)
        records = 0
        if start < end and not stop.is_set():
            consumer.assign([KafkaTopicPartition(topic, partition, start)])
            records = _read(consumer, target, end, apply, stop)
        return Restored(records, monotonic() - started, end)
    finally:
        consumer.close()


@dataclass(frozen=True, slots=True)
class LogEnds:
    """Where a log ends: for readers of committed records, and for what is written."""

    committed: int
    written: int

    @property
    def between(self) -> dict[str, int]:
        """The offsets that are written and not committed, as fields of a log line."""
        return {"first": self.committed, "last": self.written - 1}


def log_ends(options: Mapping[str, Any], topic: str, partition: int, stop: threading.Event) -> LogEnds:
    """Both ends of a log that nobody writes to meanwhile. For a thread. Raises BrokerUnavailable."""
    ends: list[int] = []
    for isolation in ("read_committed", "read_uncommitted"):
        consumer = Consumer({**options, "group.id": "tidegate-bounds", "isolation.level": isolation})
        try:
            ends.append(_watermarks(consumer, KafkaTopicPartition(topic, partition), stop)[1])
        finally:
            consumer.close()
    return LogEnds(*ends)


def log_bounds(confluent_options: Mapping[str, Any], topic: str, partition: int) -> tuple[int, int]:
    """The log's first offset and its end. For a thread. Raises BrokerUnavailable."""
    consumer = Consumer({**confluent_options, "group.id": "tidegate-bounds"})
    try:
        return _watermarks(consumer, KafkaTopicPartition(topic, partition), threading.Event())
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, target: KafkaTopicPartition, stop: threading.Event) -> tuple[int, int]:
    """The log's first offset and its end, as a reader of committed records sees it; asked in short turns, so that a
    revocation does not wait for a broker that is away."""
    reason, deadline = f"no answer within {_SILENCE:.0f} s", Deadline(_SILENCE)
    while not (stop.is_set() or deadline.expired):
        try:
            offsets = consumer.get_watermark_offsets(target, timeout=_TURN)
        except KafkaException as error:
            if error.args[0].code() not in _AWAY:
                reason = error.args[0].str()
                break
            time.sleep(_POLL)
            continue
        if offsets is not None:
            return offsets
    raise BrokerUnavailable(f"cannot read the ends of {target.topic}-{target.partition}: {reason}")


def _read(consumer: Consumer, target: KafkaTopicPartition, end: int, apply: Apply, stop: threading.Event) -> int:
    """Chunk by chunk until the end that stood at the start is reached, or the reader says that nothing more can
    come."""
    count, heard = 0, monotonic()
    while not stop.is_set():
        messages = consumer.consume(_CHUNK, timeout=_POLL)
        records = [message for message in messages if message.error() is None]
        if records:
            last: int = records[-1].offset() or 0
            apply([m.key() or b"" for m in records], [m.value() for m in records], last)
            count += len(records)
            if last >= end - 1:
                return count
        if any(_is_end(message) for message in messages):
            return count
        if messages:
            heard = monotonic()
        elif monotonic() - heard > _SILENCE:
            raise BrokerUnavailable(f"changelog {target.topic}-{target.partition}: silent for {_SILENCE:.0f} s")
    return count


def _is_end(message: Message) -> bool:
    """Whether this message says that the end is reached. Raises for any other error that will not pass by itself."""
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF:
        return True
    if error.retriable() or error.code() in _AWAY:
        return False
    raise BrokerUnavailable(f"changelog {message.topic()}-{message.partition()}: {error.str()}")
