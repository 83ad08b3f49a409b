"""SmallRye Reactive Messaging (Quarkus), failure strategy `dead-letter-queue`. All values are text."""

from __future__ import annotations

from typing import ClassVar

from dlq.dialects.base import Foreign, text, textual_origin

TOPIC = "dead-letter-topic"
PARTITION = "dead-letter-partition"
OFFSET = "dead-letter-offset"
EXCEPTION_CLASS = "dead-letter-exception-class-name"
REASON = "dead-letter-reason"
CAUSE_CLASS = "dead-letter-cause-class-name"
CAUSE = "dead-letter-cause"


class SmallRye:
    """The cause, where there is one, is the failure; the exception around it is the framework's."""

    name: ClassVar[str] = "smallrye"
    prefixes: ClassVar[tuple[str, ...]] = ("dead-letter-",)

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        origin = textual_origin(values, TOPIC, PARTITION, OFFSET)
        if origin is None:
            return None
        return Foreign(
            origin,
            pipeline=None,
            stage=None,
            error_type=text(values, CAUSE_CLASS) or text(values, EXCEPTION_CLASS),
            message=text(values, CAUSE) or text(values, REASON),
            stack=None,
        )
