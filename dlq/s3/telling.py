"""What the uploader tells of itself, in metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from dlq.s3.buffer import Buffer
from tidegate.telemetry import metric_defs as m
from tidegate.telemetry.metrics import Metrics

_LAG = 2.0  # seconds between two accounts of the lag


class Telling:
    """Does nothing without `metrics`. Used by one thread."""

    def __init__(self, metrics: Metrics | None, group: str, topic: str) -> None:
        self._metrics, self._group, self._topic, self._lag_at = metrics, group, topic, 0.0

    def uploaded(self, records: int, seconds: float) -> None:
        """An object of so many records is there."""
        if self._metrics is not None:
            self._metrics.inc(m.DLQ_UPLOADED, {"topic": self._topic}, records)
            self._metrics.observe(m.DLQ_PUBLISH_DURATION, {"sink": "s3"}, seconds)

    def failed(self) -> None:
        """S3 has not taken an object."""
        if self._metrics is not None:
            self._metrics.inc(m.DLQ_PUBLISH_ERRORS, {"sink": "s3"})

    def lag(self, consumer: Consumer, buffers: Iterable[Buffer]) -> None:
        """How many records of each partition are not in S3 yet; now and then."""
        now = time.monotonic()
        if self._metrics is None or now < self._lag_at:
            return
        self._lag_at = now + _LAG
        for buffer in buffers:
            bounds = consumer.get_watermark_offsets(KafkaPartition(buffer.tp.topic, buffer.tp.partition), cached=True)
            if bounds is not None and bounds[1] >= 0:
                labels = {"topic": buffer.tp.topic, "partition": str(buffer.tp.partition)}
                behind = max(0, bounds[1] - max(buffer.committed, bounds[0], 0))
                self._metrics.set(m.CONSUMER_LAG, {"consumergroup": self._group, **labels}, behind)
