"""Kafka Connect: `errors.deadletterqueue.context.headers.enable`. All values are text. The default dialect."""

from __future__ import annotations

from typing import ClassVar

from dlq.dialects.base import Foreign, text, textual_origin
from dlq.kind import Kind
from dlq.template import Layout, Slot

TOPIC = "__connect.errors.topic"
PARTITION = "__connect.errors.partition"
OFFSET = "__connect.errors.offset"
CONNECTOR = "__connect.errors.connector.name"
TASK = "__connect.errors.task.id"
STAGE = "__connect.errors.stage"
EXCEPTION_CLASS = "__connect.errors.exception.class.name"
EXCEPTION_MESSAGE = "__connect.errors.exception.message"
EXCEPTION_STACK = "__connect.errors.exception.stacktrace"


class Connect:
    """The connector is the pipeline; its task is the source partition. `__connect.errors.class.name` (the failing
    converter's Java class) has no counterpart here and is not written."""

    name: ClassVar[str] = "connect"
    prefixes: ClassVar[tuple[str, ...]] = ("__connect.errors.",)

    def write(self, kind: Kind, stack: str | None) -> Layout:
        number = b"%d" % kind.partition
        layout: Layout = [
            (TOPIC, kind.topic.encode()),
            (PARTITION, number),
            (CONNECTOR, kind.pipeline.encode()),
            (TASK, number),
            (STAGE, kind.stage.encode()),
            (EXCEPTION_CLASS, kind.error_type.encode()),
            (EXCEPTION_MESSAGE, kind.message.encode()),
            (OFFSET, Slot.OFFSET),
        ]
        return layout if stack is None else [*layout, (EXCEPTION_STACK, stack.encode())]

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
