"""Late records as they stand in the late topic, or among the dead letters: read back to what they were in the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Message

from dlq import headers as h
from dlq.dialects import last_values
from dlq.dialects.base import number
from dlq.envelope import Envelope
from dlq.late import ERROR_TYPE
from dlq.letter import RawRecord
from tidegate.config.topics import dead_letter_topic, late_topic
from tidegate.headers import Headers, headers_of
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import MissedWindow
from tidegate.stages.plan import Plan
from tidegate.stages.windows import Windows
from tidegate.store.audit import parse_id


class LateSource(NamedTuple):
    """One record of the source with the windows that miss it. `timestamp`: Kafka's in the source, ms.

    `partial`: it counted in other windows when it was read.
    """

    tp: TopicPartition
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    missed: tuple[MissedWindow, ...]
    partial: bool

    @classmethod
    def of(cls, record: RawRecord, missed: tuple[MissedWindow, ...], partial: bool) -> LateSource:
        """A record as it stands in the source."""
        where = (record.tp, record.offset, record.timestamp)
        return cls(*where, record.key, record.value, record.headers, missed, partial)


class LateReading:
    """Reads one pipeline's late records. `topic`: where they are; None when its strategy keeps them nowhere."""

    def __init__(self, plan: Plan) -> None:
        pipeline = plan.pipeline
        self._pipeline = pipeline.pipeline_id
        self._windows = {a.name: Windows(a.size, a.hop) for a in plan.aggregations}
        self._allowed = 0 if pipeline.event_time is None else pipeline.event_time.allowed_lateness
        self._as_dead_letters = pipeline.late_data.strategy == "sendToDLQ"
        self.topic = dead_letter_topic(pipeline) if self._as_dead_letters else late_topic(pipeline)

    def read(self, message: Message) -> LateSource | None:
        """None for a record that is no late one of this pipeline, or that is not whole any more (cut to fit)."""
        headers = headers_of(message)
        values = last_values(headers)
        key, value = _bytes(message.key()), _bytes(message.value())
        if self._as_dead_letters:
            return self._dead_letter(message, key, value, headers, values)
        place = parse_id(values.get(h.LATE_ID, b"").decode(errors="replace"))
        timestamp = number(values, h.LATE_TIMESTAMP)
        if place is None or timestamp is None:
            return None
        facts = {
            "windows": _json(values.get(h.LATE_WINDOWS)),
            "windowsCount": number(values, h.LATE_WINDOWS_COUNT),
            "eventTime": number(values, h.LATE_EVENT_TIME),
            "watermark": number(values, h.LATE_WATERMARK),
        }
        own = tuple(header for header in headers if not header[0].startswith(h.LATE_PREFIX))
        partial = values.get(h.LATE_PARTIAL) == b"true"
        return LateSource(*place, timestamp, key, value, own, self._missed(facts), partial)

    def _dead_letter(
        self, message: Message, key: bytes | None, value: bytes | None, headers: Headers, values: dict[str, bytes]
    ) -> LateSource | None:
        if values.get(h.ERROR_TYPE) != ERROR_TYPE.encode() or h.ID not in values:
            return None
        tp = TopicPartition(message.topic() or "", message.partition() or 0)
        envelope = Envelope.from_record(
            key, value, headers, tp=tp, offset=message.offset() or 0, timestamp=message.timestamp()[1], values=values
        )
        place, facts = parse_id(envelope.id), envelope.context
        ours = envelope.pipeline == self._pipeline and envelope.stage == Stage.EVENT_TIME
        if not ours or place is None or facts is None or {"value", "key", "headers"}.intersection(envelope.truncated):
            return None
        timestamp = envelope.origin.timestamp or 0
        partial = facts.get("partial") is True
        return LateSource(*place, timestamp, key, value, envelope.headers, self._missed(facts), partial)

    def _missed(self, facts: Mapping[str, Any]) -> tuple[MissedWindow, ...]:
        """All of them as they were noted; where there were more than are noted, as the pipeline file has them."""
        noted = facts.get("windows")
        if isinstance(noted, list) and len(noted) == facts.get("windowsCount"):
            return tuple(MissedWindow(one["aggregation"], one["start"], one["end"]) for one in noted)
        time, watermark = facts.get("eventTime"), facts.get("watermark")
        if not isinstance(time, int) or not isinstance(watermark, int):
            return ()
        return tuple(
            MissedWindow(name, start, start + windows.size)
            for name, windows in self._windows.items()
            for start in windows.missed(time, watermark - self._allowed)
        )


def _bytes(part: bytes | str | None) -> bytes | None:
    return part.encode() if isinstance(part, str) else part


def _json(data: bytes | None) -> Any:
    try:
        return None if data is None else msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
