"""Rows for Kafka, confirmed: when `write` returns, the brokers have them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tidegate.errors import BrokerUnavailable, RowTooLarge, TidegateError
from tidegate.record import OutRow

_CONFIRMED = 30.0  # seconds for the brokers to take a micro-batch's rows once all are handed over
_LARGEST = 1_000_000_000  # bytes of a row; the topic decides, not the client
_QUEUED = 500_000  # rows on their way; `write` waits when there are more


class ConfirmedProducer:
    """Idempotent: a retry inside does not double a row. A row that is written again after a crash has the same id."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options`: confluent_options(kafka)."""
        self._producer = Producer(
            {
                **options,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": 20,
                "delivery.timeout.ms": int(_CONFIRMED * 1000),
                "queue.buffering.max.messages": _QUEUED,
                "message.max.bytes": _LARGEST,
                "logger": _quiet(),
            }
        )
        self._failed: TidegateError | None = None

    def write(self, rows: Iterable[OutRow]) -> None:
        """Write rows in order. Raises BrokerUnavailable (some may be written), RowTooLarge."""
        self._failed, count = None, 0
        for row in rows:
            count += 1
            self._produce(row)
        if count and self._producer.flush(_CONFIRMED * 2):
            self._producer.purge()
            raise BrokerUnavailable(f"the brokers did not confirm {count} rows within {_CONFIRMED * 2:.0f} s")
        if self._failed is not None:
            raise self._failed

    def _produce(self, row: OutRow) -> None:
        while True:
            try:
                self._producer.produce(
                    row.topic,
                    value=row.value,
                    key=row.key,
                    partition=row.partition,
                    headers=list(row.headers),
                    on_delivery=self._delivered,
                    timestamp=row.timestamp or 0,  # 0: the producer's clock
                )
            except BufferError:
                self._producer.poll(0.1)
                continue
            except KafkaException as error:
                raise _error(error.args[0], row.topic, row.key, row.value) from error
            self._producer.poll(0)
            return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failed is None:
            self._failed = _error(error, message.topic() or "", message.key(), message.value())


def _error(error: KafkaError, topic: str, key: bytes | str | None, value: bytes | str | None) -> TidegateError:
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return RowTooLarge(topic, len(key or b"") + len(value or b""))
    return BrokerUnavailable(f"topic {topic!r} does not take rows: {error.str()}")


def _quiet() -> logging.Logger:
    """librdkafka would write each failed connection to stderr; the error says it once."""
    logger = logging.getLogger("tidegate.batch.producer")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger
