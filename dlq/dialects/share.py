"""Kafka's share groups (KIP-1191): the broker writes the dead letter. All values are text; there is no class and no stack."""

from __future__ import annotations

from typing import ClassVar

from dlq.dialects.base import Foreign, number, text, textual_origin

TOPIC = "__dlq.errors.topic"
PARTITION = "__dlq.errors.partition"
OFFSET = "__dlq.errors.offset"
GROUP = "__dlq.errors.group"
MESSAGE = "__dlq.errors.message"
DELIVERIES = "__dlq.errors.delivery.count"


class Share:
    """The share group is the pipeline, its deliveries are the attempts."""

    name: ClassVar[str] = "share"
    prefixes: ClassVar[tuple[str, ...]] = ("__dlq.errors.",)

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        origin = textual_origin(values, TOPIC, PARTITION, OFFSET)
        if origin is None:
            return None
        return Foreign(
            origin,
            pipeline=text(values, GROUP),
            stage=None,
            error_type=None,
            message=text(values, MESSAGE),
            stack=None,
            attempt=number(values, DELIVERIES),
        )
