"""Kafka Connect: `errors.deadletterqueue.context.headers.enable`. All values are text. The default dialect."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

from dlq.dialects.base import Failure, Foreign, Headers, text, textual_origin

TOPIC = "__connect.errors.topic"
PARTITION = "__connect.errors.partition"
OFFSET = "__connect.errors.offset"
CONNECTOR = "__connect.errors.connector.name"
TASK = "__connect.errors.task.id"
STAGE = "__connect.errors.stage"
EXCEPTION_CLASS = "__connect.errors.exception.class.name"
EXCEPTION_MESSAGE = "__connect.errors.exception.message"
EXCEPTION_STACK = "__connect.errors.exception.stacktrace"


@lru_cache(maxsize=256)  # most dead letters of a batch are the same failure
def _shared(
    topic: str, partition: int, pipeline: str, stage: str, error_type: str, message: str
) -> tuple[tuple[str, bytes], ...]:
    number = b"%d" % partition
    return (
        (TOPIC, topic.encode()),
        (PARTITION, number),
        (CONNECTOR, pipeline.encode()),
        (TASK, number),
        (STAGE, stage.encode()),
        (EXCEPTION_CLASS, error_type.encode()),
        (EXCEPTION_MESSAGE, message.encode()),
    )


class Connect:
    """The connector is the pipeline; its task is the source partition. `__connect.errors.class.name` (the failing
    converter's Java class) has no counterpart here and is not written."""

    name: ClassVar[str] = "connect"
    prefixes: ClassVar[tuple[str, ...]] = ("__connect.errors.",)

    def write(self, failure: Failure) -> Headers:
        topic, partition, offset, *_ = failure.origin
        headers: Headers = [
            *_shared(topic, partition, failure.pipeline, failure.stage, failure.error_type, failure.message),
            (OFFSET, b"%d" % offset),
        ]
        if failure.stack is not None:
            headers.append((EXCEPTION_STACK, failure.stack.encode()))
        return headers

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        origin = textual_origin(values, TOPIC, PARTITION, OFFSET)
        if origin is None:
            return None
        return Foreign(
            origin,
            pipeline=text(values, CONNECTOR),
            stage=text(values, STAGE),
            error_type=text(values, EXCEPTION_CLASS),
            message=text(values, EXCEPTION_MESSAGE),
            stack=text(values, EXCEPTION_STACK),
        )
