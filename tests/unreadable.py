"""Records with a header whose name is no UTF-8: the Python clients write none, others do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from tidegate.record import OutRow

Pairs = list[tuple[str, bytes | None]]


class NotUtf8(str):
    """A header's name that is written as Latin-1: `NotUtf8("é")` is the byte E9 on the wire."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return super().encode("latin-1")


def builder(codec: int = 0) -> Any:
    """Of a record batch; its names may be NotUtf8. `codec`: Kafka's number, 0 is none."""
    return _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, 0, 1 << 20)


def produce_rows(servers: str, rows: Sequence[OutRow]) -> None:
    """Write records of one topic and partition, in one batch."""
    asyncio.run(_produce(servers, rows))


async def _produce(servers: str, rows: Sequence[OutRow]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    try:
        batch = producer.create_batch()
        batch._builder = builder()  # the compiled one wants to encode names itself
        for row in rows:
            batch.append(key=row.key, value=row.value, timestamp=row.timestamp or 1000, headers=row.headers)
        batch.close()
        await (await producer.send_batch(batch, rows[0].topic, partition=rows[0].partition))
    finally:
        await producer.stop()
