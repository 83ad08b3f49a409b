"""Kafka Streams 4.2 (KIP-1034). All values are text; the exception is written as Java does: `class: message`."""

from __future__ import annotations

from typing import ClassVar

from dlq.dialects.base import Foreign, text, textual_origin
from dlq.kind import Kind
from dlq.template import Layout, Slot

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

    def write(self, kind: Kind, stack: str | None) -> Layout:
        layout: Layout = [
            (TOPIC, kind.topic.encode()),
            (PARTITION, b"%d" % kind.partition),
            (OFFSET, Slot.OFFSET),
            (EXCEPTION, f"{kind.error_type}: {kind.message}".encode()),
            (MESSAGE, kind.message.encode()),
        ]
        return layout if stack is None else [*layout, (STACK, stack.encode())]

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
