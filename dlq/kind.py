"""Which letters of a batch tell of the same failure: what they share is worked out, and put into headers, once for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dlq.encoding import well_formed_reason
from dlq.fingerprint import fingerprint
from dlq.limits import MAX_MESSAGE_BYTES, cut_text, well_formed
from tidegate.record import TopicPartition
from tidegate.stages.batch import Reason, Rejection


class Kind(msgspec.Struct, frozen=True, eq=False):
    """What letters of one batch share when their records failed alike. Times in ms since the epoch.

    `topic`, `partition`, `timestamp_type` and `first_failure` are those of the first failure, also when a replay fails again.
    Two kinds are equal only when they are the same object.
    """

    pipeline: str
    schema: str
    stage: str
    error_type: str
    message: str
    fingerprint: str
    stack: str | None
    attempt: int
    first_failure: int
    last_failure: int
    topic: str
    partition: int
    timestamp_type: str | None
    context: Mapping[str, Any] | None
    replays: int = 0


class Kinds:
    """The kinds of one batch's letters, each made when the first of its letters is: never more than there are letters.

    `context` goes into every one of them (the engine, the host). `now_ms`: when the records failed.
    """

    def __init__(self, *, pipeline: str, schema: str, now_ms: int, context: Mapping[str, Any] | None = None) -> None:
        self._pipeline, self._schema, self._now_ms, self._context = pipeline, schema, now_ms, context
        self._found: dict[tuple[Any, ...], Kind] = {}

    def of(self, rejection: Rejection, tp: TopicPartition, timestamp_type: str | None) -> Kind:
        """The kind of what was said of a record of `tp`: its first reason names it, whatever was found there."""
        first = rejection.reasons[0]
        alike = (
            rejection.stage, first.error_type, first.message, first.rule, first.field, rejection.stack, rejection.attempt,
            tp, timestamp_type,
        )  # fmt: skip
        kind = self._found.get(alike)
        if kind is None:
            kind = self._found[alike] = self._kind(rejection, well_formed_reason(first), tp, timestamp_type)
        return kind

    def _kind(self, rejection: Rejection, first: Reason, tp: TopicPartition, timestamp_type: str | None) -> Kind:
        stage, message = rejection.stage.value, cut_text(first.message, MAX_MESSAGE_BYTES)
        return Kind(
            pipeline=self._pipeline,
            schema=self._schema,
            stage=stage,
            error_type=first.error_type,
            message=message,
            fingerprint=fingerprint(stage, first.error_type, first.rule, first.field, message),
            stack=None if rejection.stack is None else well_formed(rejection.stack),
            attempt=rejection.attempt,
            first_failure=self._now_ms,
            last_failure=self._now_ms,
            topic=tp.topic,
            partition=tp.partition,
            timestamp_type=timestamp_type,
            context=self._context,
        )
