"""What every worker knows of every source partition: its watermark, and whether it is idle.

Each batch's transaction writes one row to the compacted topic `{pipelineId}..watermarks`; each worker reads them all. So a
window on a quiet partition can close as soon as the rest of the pipeline has passed it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError
from confluent_kafka import TopicPartition as ConfluentPartition

from tidegate.record import TopicPartition

log = structlog.get_logger(__name__)
NEVER = -(1 << 62)  # the watermark of a partition that has no event time yet
EVERYTHING = 1 << 62  # the pipeline's watermark when every partition is idle: all windows may close


class SourceWatermark(msgspec.Struct, frozen=True):
    """One source partition: `watermark` in ms (NEVER: none yet), the offset it holds for, and whether it is idle."""

    topic: str
    partition: int
    watermark: int
    upto: int
    idle: bool = False

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SourceWatermark).decode


def encode_watermark(row: SourceWatermark) -> bytes:
    return _encode(row)


def decode_watermark(value: bytes) -> SourceWatermark:
    return _decode(value)


def watermark_key(tp: TopicPartition) -> bytes:
    return str(tp).encode()


def pipeline_watermark(
    known: Mapping[TopicPartition, SourceWatermark], expected: Iterable[TopicPartition]
) -> int | None:
    """The minimum over the partitions that are not idle; None while a partition is unknown; EVERYTHING when all are idle."""
    minimum = EVERYTHING
    for tp in expected:
        row = known.get(tp)
        if row is None:
            return None
        if not row.idle:
            minimum = min(minimum, row.watermark)
    return minimum


class WatermarkBoard:
    """Reads the watermarks topic in a thread of its own. `known` may be read from any thread."""

    def __init__(self, options: dict[str, Any], topic: str) -> None:
        self._topic = topic
        self._options = {
            **options,
            "group.id": f"{topic}-board",  # required by the client; nothing is committed and nobody joins
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
        self._rows: dict[TopicPartition, SourceWatermark] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watermarks", daemon=True)

    @property
    def known(self) -> dict[TopicPartition, SourceWatermark]:
        return dict(self._rows)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except Exception as error:  # the thread must not end: windows of quiet partitions would never close again
                log.error("watermarks.read_failed", topic=self._topic, error=f"{type(error).__name__}: {error}")
                self._stopping.wait(1.0)

    def _read(self) -> None:
        consumer = Consumer(self._options)
        consumer.assign([ConfluentPartition(self._topic, 0, OFFSET_BEGINNING)])
        try:
            while not self._stopping.is_set():
                for message in consumer.consume(1000, timeout=0.25):
                    self._take(message)
        finally:
            consumer.close()

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is not None:
            if error.code() not in (KafkaError._PARTITION_EOF, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                log.warning("watermarks.read_failed", topic=self._topic, error=str(error))
            return
        try:
            row = decode_watermark(message.value() or b"")
        except msgspec.DecodeError as foreign:
            log.warning("watermarks.foreign_row", topic=self._topic, offset=message.offset(), error=str(foreign))
        else:
            self._rows[row.tp] = row
