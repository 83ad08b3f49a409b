"""Spring Kafka's DeadLetterPublishingRecoverer. Numbers are big-endian: int32 partition, int64 offset and timestamp.

A record in one of Spring's retry topics carries the same under other names (`kafka_original-…`, `kafka_exception-…`).
"""

from __future__ import annotations

import struct
from typing import ClassVar

from dlq.dialects.base import Foreign, Origin, text
from dlq.kind import Kind
from dlq.template import Layout, Slot

TOPIC = "kafka_dlt-original-topic"
PARTITION = "kafka_dlt-original-partition"
OFFSET = "kafka_dlt-original-offset"
TIMESTAMP = "kafka_dlt-original-timestamp"
TIMESTAMP_TYPE = "kafka_dlt-original-timestamp-type"
CONSUMER_GROUP = "kafka_dlt-original-consumer-group"
EXCEPTION_CLASS = "kafka_dlt-exception-fqcn"
EXCEPTION_MESSAGE = "kafka_dlt-exception-message"
EXCEPTION_STACK = "kafka_dlt-exception-stacktrace"
CAUSE_CLASS = "kafka_dlt-exception-cause-fqcn"
KEY_EXCEPTION_CLASS = "kafka_dlt-key-exception-fqcn"
KEY_EXCEPTION_MESSAGE = "kafka_dlt-key-exception-message"
ATTEMPTS = "retry_topic-attempts"  # int32; one byte in older versions

_RETRY_NAMES = (("kafka_original-", "kafka_dlt-original-"), ("kafka_exception-", "kafka_dlt-exception-"))

_INT8 = struct.Struct(">b")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")


class Spring:
    """The consumer group is the pipeline. Spring has no word for a stage."""

    name: ClassVar[str] = "spring"
    prefixes: ClassVar[tuple[str, ...]] = ("kafka_dlt-", "kafka_original-", "kafka_exception-", "retry_topic-")

    def write(self, kind: Kind, stack: str | None) -> Layout:
        layout: Layout = [
            (TOPIC, kind.topic.encode()),
            (PARTITION, _INT32.pack(kind.partition)),
            (OFFSET, Slot.OFFSET_INT64),
            (CONSUMER_GROUP, kind.pipeline.encode()),
            (EXCEPTION_CLASS, kind.error_type.encode()),
            (EXCEPTION_MESSAGE, kind.message.encode()),
            (TIMESTAMP, Slot.TIMESTAMP_INT64),
        ]
        if kind.timestamp_type is not None:
            layout.append((TIMESTAMP_TYPE, kind.timestamp_type.encode()))
        return layout if stack is None else [*layout, (EXCEPTION_STACK, stack.encode())]

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        values = values if TOPIC in values else _with_names_of_dead_letters(values)
        topic = text(values, TOPIC)
        partition, offset = _binary(values, PARTITION, _INT32), _binary(values, OFFSET, _INT64)
        if topic is None or partition is None or offset is None:
            return None
        timestamp, timestamp_type = _binary(values, TIMESTAMP, _INT64), text(values, TIMESTAMP_TYPE)
        return Foreign(
            Origin(topic, partition, offset, timestamp, timestamp_type),
            pipeline=text(values, CONSUMER_GROUP),
            stage=None,
            # The exception itself is mostly the listener container's; what happened is its cause.
            error_type=text(values, CAUSE_CLASS) or text(values, EXCEPTION_CLASS) or text(values, KEY_EXCEPTION_CLASS),
            message=text(values, EXCEPTION_MESSAGE) or text(values, KEY_EXCEPTION_MESSAGE),
            stack=text(values, EXCEPTION_STACK),
            attempt=_binary(values, ATTEMPTS, _INT32) or _binary(values, ATTEMPTS, _INT8),
        )


def _with_names_of_dead_letters(values: dict[str, bytes]) -> dict[str, bytes]:
    """The headers of a retry topic under the names of dead letters."""
    named = dict(values)
    for retry, dead in _RETRY_NAMES:
        named |= {dead + name.removeprefix(retry): value for name, value in values.items() if name.startswith(retry)}
    return named


def _binary(values: dict[str, bytes], name: str, form: struct.Struct) -> int | None:
    """A binary number, or None when it is missing or of another length."""
    value = values.get(name)
    if value is None or len(value) != form.size:
        return None
    return int(form.unpack(value)[0])
