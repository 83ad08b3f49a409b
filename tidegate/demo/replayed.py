"""Where the replays are in the source topic: what follows the stream's last record, and names the dead letter it is of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tidegate.demo.truth import REPLAYED_SCHEMA
from tidegate.errors import StackError
from tidegate.headers import REPLAY_OF, headers_of

_TIMEOUT = 60.0  # s for all of it


def read_replays(bootstrap_servers: str, topic: str, ends: Mapping[int, int]) -> pa.Table:
    """A row for each, as REPLAYED_SCHEMA. `ends`: the offset behind the stream's last record of each partition.

    Raises StackError when the topic cannot be read to its end, or has something else there.
    """
    rows = [_row(message) for message in _messages(bootstrap_servers, topic, ends)]
    columns = zip(*rows, strict=True) if rows else ((),) * len(REPLAYED_SCHEMA)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, REPLAYED_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=REPLAYED_SCHEMA)


def _messages(bootstrap_servers: str, topic: str, ends: Mapping[int, int]) -> Iterator[Message]:
    """Committed ones, to the ends of the partitions as they are."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "tidegate-demo",  # required, and not used: nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    deadline, awaited = time.monotonic() + _TIMEOUT, set(ends)
    try:
        consumer.assign([TopicPartition(topic, partition, end) for partition, end in ends.items()])
        while awaited:
            message = consumer.poll(1.0)
            if message is None:
                if time.monotonic() > deadline:
                    raise StackError(f"{topic} was not read to its end within {_TIMEOUT:.0f} s")
            elif (error := message.error()) is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                awaited.discard(message.partition())
            else:
                raise StackError(f"{topic} cannot be read: {KafkaException(error)}")
    finally:
        consumer.close()


def _row(message: Message) -> tuple[int | None, int | None, int, int, int]:
    of = dict(headers_of(message)).get(REPLAY_OF)
    if of is None:
        raise StackError(f"offset {message.offset()} of partition {message.partition()} is no flight and no replay")
    origin = place_of(of.decode())
    return message.partition(), message.offset(), message.timestamp()[1], *origin


def place_of(id: str) -> tuple[int, int]:
    """The partition and the offset in a record's id: departures-5-227."""
    _, partition, offset = id.rsplit("-", 2)
    return int(partition), int(offset)
