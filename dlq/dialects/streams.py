"""Kafka Streams 4.2 (KIP-1034). All values are text; the exception is written as Java does: `class: message`."""

from __future__ import annotations

from typing import ClassVar

from dlq.dialects.base import Failure, Foreign, Headers, text, textual_origin

TOPIC = "__streams.errors.topic"
PARTITION = "__streams.errors.partition"
OFFSET = "__streams.errors.offset"
EXCEPTION = "__streams.errors.exception"
MESSAGE = "__streams.errors.message"
STACK = "__streams.errors.stacktrace"


class Streams:
    """The smallest of the dialects: origin and exception."""

    name: ClassVar[str] = "streams"
    prefixes: ClassVar[tuple[str, ...]] = ("__streams.errors.",)

    def write(self, failure: Failure) -> Headers:
        origin = failure.origin
        headers: Headers = [
            (TOPIC, origin.topic.encode()),
            (PARTITION, b"%d" % origin.partition),
            (OFFSET, b"%d" % origin.offset),
            (EXCEPTION, f"{failure.error_type}: {failure.message}".encode()),
            (MESSAGE, failure.message.encode()),
        ]
        if failure.stack is not None:
            headers.append((STACK, failure.stack.encode()))
        return headers

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        origin = textual_origin(values, TOPIC, PARTITION, OFFSET)
        if origin is None:
            return None
        exception = text(values, EXCEPTION)
        return Foreign(
            origin,
            pipeline=None,
            stage=None,
            error_type=None if exception is None else exception.partition(":")[0],
            message=text(values, MESSAGE),
            stack=text(values, STACK),
        )
