"""Spring Kafka's DeadLetterPublishingRecoverer. Numbers are big-endian: int32 partition, int64 offset and timestamp."""

from __future__ import annotations

import struct
from typing import ClassVar

from dlq.dialects.base import Failure, Foreign, Headers, Origin, text

TOPIC = "kafka_dlt-original-topic"
PARTITION = "kafka_dlt-original-partition"
OFFSET = "kafka_dlt-original-offset"
TIMESTAMP = "kafka_dlt-original-timestamp"
TIMESTAMP_TYPE = "kafka_dlt-original-timestamp-type"
CONSUMER_GROUP = "kafka_dlt-original-consumer-group"
EXCEPTION_CLASS = "kafka_dlt-exception-fqcn"
EXCEPTION_MESSAGE = "kafka_dlt-exception-message"
EXCEPTION_STACK = "kafka_dlt-exception-stacktrace"

_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")


class Spring:
    """The consumer group is the pipeline. Spring has no word for a stage."""

    name: ClassVar[str] = "spring"
    prefix: ClassVar[str] = "kafka_dlt-"

    def write(self, failure: Failure) -> Headers:
        origin = failure.origin
        headers: Headers = [
            (TOPIC, origin.topic.encode()),
            (PARTITION, _INT32.pack(origin.partition)),
            (OFFSET, _INT64.pack(origin.offset)),
            (CONSUMER_GROUP, failure.pipeline.encode()),
            (EXCEPTION_CLASS, failure.error_type.encode()),
            (EXCEPTION_MESSAGE, failure.message.encode()),
        ]
        if origin.timestamp is not None:
            headers.append((TIMESTAMP, _INT64.pack(origin.timestamp)))
        if origin.timestamp_type is not None:
            headers.append((TIMESTAMP_TYPE, origin.timestamp_type.encode()))
        if failure.stack is not None:
            headers.append((EXCEPTION_STACK, failure.stack.encode()))
        return headers

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        topic = text(values, TOPIC)
        partition, offset = _binary(values, PARTITION, _INT32), _binary(values, OFFSET, _INT64)
        if topic is None or partition is None or offset is None:
            return None
        timestamp, timestamp_type = _binary(values, TIMESTAMP, _INT64), text(values, TIMESTAMP_TYPE)
        return Foreign(
            Origin(topic, partition, offset, timestamp, timestamp_type),
            pipeline=text(values, CONSUMER_GROUP),
            stage=None,
            error_type=text(values, EXCEPTION_CLASS),
            message=text(values, EXCEPTION_MESSAGE),
            stack=text(values, EXCEPTION_STACK),
        )


def _binary(values: dict[str, bytes], name: str, form: struct.Struct) -> int | None:
    """A binary number, or None when it is missing or of another length."""
    value = values.get(name)
    if value is None or len(value) != form.size:
        return None
    return int(form.unpack(value)[0])
