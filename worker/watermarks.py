"""What every worker knows of every source partition: its watermark, and whether it is idle.

Each batch's transaction writes one row to the compacted topic `{pipelineId}..watermarks`; each worker reads them all. So a
window on a quiet partition can close as soon as the rest of the pipeline has passed it. Beside them a pipeline that starts
at `latest` keeps where it began: it is a fact about all partitions, and no partition's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ConfluentPartition

from tidegate.record import TopicPartition
from tidegate.store.watermark import pipeline_watermark

log = structlog.get_logger(__name__)
NEVER = -(1 << 62)  # the watermark of a partition that has no event time yet
_BEGINNING = b"\x00"  # the first byte of a beginning's key; a partition's begins with its topic
_PASSING = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._RESOLVE)


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


class Beginning(msgspec.Struct, frozen=True):
    """Where a pipeline that starts at `latest` began with a topic: partition → the offset that its first record has."""

    topic: str
    ends: dict[int, int]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SourceWatermark).decode
_decode_beginning = msgspec.msgpack.Decoder(Beginning).decode


def encode_watermark(row: SourceWatermark) -> bytes:
    return _encode(row)


def decode_watermark(value: bytes) -> SourceWatermark:
    return _decode(value)


def beginning_row(beginning: Beginning, writer: str) -> tuple[bytes, bytes]:
    """Key and value. Each writer has a key of its own, so that compaction keeps what two of them wrote at once."""
    return _BEGINNING + f"{beginning.topic}/{writer}".encode(), _encode(beginning)


def first_of(beginnings: Sequence[Beginning]) -> dict[int, int]:
    """What holds when several workers began at once: the partitions that each of them saw, each from its lowest offset."""
    partitions = set(beginnings[0].ends).intersection(*(row.ends for row in beginnings))
    return {partition: min(row.ends[partition] for row in beginnings) for partition in partitions}


def watermark_key(tp: TopicPartition) -> bytes:
    return str(tp).encode()


def watermark_of_all(known: Mapping[TopicPartition, SourceWatermark], expected: Iterable[TopicPartition]) -> int | None:
    """The pipeline's (tidegate/store/watermark.py); None, too, while a partition is unknown."""
    rows = [known.get(tp) for tp in expected]
    if None in rows:
        return None
    return pipeline_watermark((None if row.watermark == NEVER else row.watermark, row.idle) for row in rows if row)


class WatermarkBoard:
    """Reads the watermarks topic in a thread of its own. Its answers may be asked for from any thread.

    It says nothing before it has read up to the end: a row that is not read yet can undo an older one (a partition that was
    idle and is so no more), and windows would close too early.
    """

    def __init__(self, options: dict[str, Any], topic: str) -> None:
        self._topic = topic
        self._options = {
            **options,
            "group.id": f"{topic}-board",  # required by the client; nothing is committed and nobody joins
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
        self._rows: dict[TopicPartition, SourceWatermark] = {}
        self._beginnings: dict[bytes, Beginning] = {}
        self._current = threading.Event()
        self._trouble = "it is being read"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watermarks", daemon=True)

    @property
    def known(self) -> dict[TopicPartition, SourceWatermark]:
        """The newest row of each partition; none while the topic is not read up to its end."""
        return dict(self._rows) if self._current.is_set() else {}

    def beginning(self, topic: str) -> dict[int, int] | None:
        """Where the pipeline began with a topic, partition → offset; None: it has not, or it is not known (yet)."""
        rows = [row for row in list(self._beginnings.values()) if row.topic == topic]
        return first_of(rows) if rows and self._current.is_set() else None

    def check(self) -> str | None:
        """For /ready: why the board says nothing."""
        return None if self._current.is_set() else f"{self._topic}: {self._trouble}"

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until the topic is read up to its end; False: it took longer."""
        return self._current.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Sleep, unless the board is being stopped."""
        self._stopping.wait(seconds)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():  # the worker may have failed before it was started
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except Exception as error:  # the thread must not end: windows of quiet partitions would never close again
                self._current.clear()
                self._trouble = f"{type(error).__name__}: {error}"
                log.error("watermarks.read_failed", topic=self._topic, error=self._trouble)
                self._stopping.wait(1.0)

    def _read(self) -> None:
        """From the beginning: what was known before is forgotten, since older rows come first again."""
        self._rows, self._beginnings = {}, {}
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
            if error.code() == KafkaError._PARTITION_EOF:
                self._current.set()
            elif not (error.retriable() or error.code() in _PASSING):
                raise KafkaException(error)
            return
        key, value = message.key() or b"", message.value() or b""
        try:
            if key.startswith(_BEGINNING):
                self._beginnings[key] = _decode_beginning(value)
            else:
                row = decode_watermark(value)
                self._rows[row.tp] = row
        except msgspec.DecodeError as foreign:
            log.warning("watermarks.foreign_row", topic=self._topic, offset=message.offset(), error=str(foreign))
