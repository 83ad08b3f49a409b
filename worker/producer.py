"""One transactional producer per source partition: changelog, results, dead letters and late records in one
transaction.

1. begin    only if this producer is not fenced
2. write    all rows, packed into record batches (worker/packing.py; per record, `send` is ten times slower)
3. commit   all of it becomes visible to `read_committed` readers at once, or nothing does

A failure leaves the outcome to the broker: whoever starts the next producer with the same id aborts what is open and
waits for what is being committed, and the changelog then says which it was.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import aiokafka.producer.sender
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka import errors as kafka_errors

from tidegate.errors import BrokerUnavailable, ProducerFenced, RowTooLarge
from tidegate.record import TopicPartition
from worker.packing import pack
from worker.records import Rows

# After a commit the broker still writes markers and refuses the next transaction; aiokafka then waits 20 ms, which
# would be most of a small transaction.
_RETRY_AFTER_MARKERS = 0.003
aiokafka.producer.sender.BACKOFF_OVERRIDE = _RETRY_AFTER_MARKERS

_MAX_SEQUENCE = (
    2_000_000_000  # aiokafka numbers rows per partition and goes negative at 2³¹; a new producer starts at 0
)
_CLOSE_TIMEOUT = 2.0  # seconds; what is under way takes milliseconds, and a broker that is away takes nothing

_FENCED = (kafka_errors.ProducerFenced, kafka_errors.InvalidProducerEpoch, kafka_errors.InvalidProducerIdMapping)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


def transactional_id(pipeline_id: str, tp: TopicPartition) -> str:
    """The id that fences: whoever initialises it last owns the partition."""
    return f"tidegate/{pipeline_id}/{tp.topic}/{tp.partition}"  # no name has a slash: two pipelines never share an id


class PartitionProducer:
    """Writes one source partition's transactions. `kafka_options` are aiokafka's connection options.

    Not for concurrent use: one `commit` at a time. `timeout` (seconds) bounds `start` and `commit`;
    `transaction_timeout` (seconds) is when the broker aborts a transaction whose producer has gone silent.
    """

    def __init__(
        self,
        kafka_options: Mapping[str, Any],
        transactional_id: str,
        *,
        transaction_timeout: float = 60.0,
        timeout: float = 30.0,
    ) -> None:
        self.transactional_id = transactional_id
        self._options, self._timeout = kafka_options, timeout
        self._transaction_timeout = transaction_timeout
        self._producer: AIOKafkaProducer | None = None
        self._rows_sent: defaultdict[tuple[str, int], int] = defaultdict(int)

    async def start(self) -> None:
        """Initialise the id: predecessors are fenced, and their open transaction is settled. Also reopens after a
        failure.

        Raises BrokerUnavailable.
        """
        await self.stop()
        producer = AIOKafkaProducer(
            **self._options,
            transactional_id=self.transactional_id,
            transaction_timeout_ms=int(self._transaction_timeout * 1000),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            request_timeout_ms=int(min(self._timeout, 10.0) * 1000),
        )
        try:
            async with asyncio.timeout(self._timeout):
                await producer.start()
        except BaseException as error:
            await _close(producer)
            self._raise(error)
        self._producer = producer
        self._rows_sent.clear()

    async def commit(self, rows: Sequence[Rows]) -> dict[tuple[str, int], int]:
        """Write all rows in one transaction. Returns the offset of the last row of each (topic, partition).

        Raises ProducerFenced (a newer owner: stop), RowTooLarge (nothing was written; the producer can go on), or
        BrokerUnavailable (the outcome is unknown: `start` again, then read the changelog's end).
        """
        targets: defaultdict[tuple[str, int], list[Rows]] = defaultdict(list)
        for part in rows:
            if len(part):
                targets[part.topic, part.partition].append(part)
        if not targets:
            return {}
        if any(self._rows_sent[target] + sum(map(len, parts)) > _MAX_SEQUENCE for target, parts in targets.items()):
            await self.start()
        producer = self._producer
        if producer is None:
            raise BrokerUnavailable(
                f"producer {self.transactional_id} is not open: it was stopped, or its last commit failed"
            )
        try:
            async with asyncio.timeout(self._timeout):
                await producer.begin_transaction()
                offsets = await _write_all(producer, targets)
                await producer.commit_transaction()
        except BaseException as error:
            self._producer = None
            await _close(producer)
            if isinstance(error, RowTooLarge):
                await self.start()  # aborts the transaction; the refused batch has left a hole in the row numbers
            self._raise(error)
        for target, parts in targets.items():
            self._rows_sent[target] += sum(map(len, parts))
        return offsets

    async def mark(self, partitions: Iterable[tuple[str, int]], *, committed: bool) -> None:
        """An empty transaction over these partitions: each gets an end mark of this producer, which also ends what a
        predecessor with the same id has left open there. Where nothing is open it changes nothing.

        Raises ProducerFenced or BrokerUnavailable.
        """
        producer = self._producer
        assert producer is not None
        try:
            async with asyncio.timeout(self._timeout):
                await producer.begin_transaction()
                for topic, partition in partitions:
                    producer._txn_manager.maybe_add_partition_to_txn(KafkaTopicPartition(topic, partition))
                await (producer.commit_transaction() if committed else producer.abort_transaction())
        except BaseException as error:
            self._producer = None
            await _close(producer)
            self._raise(error)

    async def stop(self) -> None:
        """Close the connections. An open transaction is left to the next `start`, or to the transaction timeout."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)

    def _raise(self, error: BaseException) -> NoReturn:
        """The project's error for one of aiokafka's; cancellation and programming errors stay what they are."""
        cause = error.__cause__ if type(error) is kafka_errors.KafkaError and error.__cause__ else error
        if isinstance(cause, _FENCED):
            message = f"producer {self.transactional_id}: a newer one has been started, or its time was up"
            raise ProducerFenced(message) from error
        if isinstance(cause, (kafka_errors.KafkaError, TimeoutError, OSError)):
            raise BrokerUnavailable(f"producer {self.transactional_id}: {cause!r}") from error
        raise error


async def _write_all(
    producer: AIOKafkaProducer, targets: Mapping[tuple[str, int], Sequence[Rows]]
) -> dict[tuple[str, int], int]:
    """All targets side by side. The first failure is raised once the others are settled, so that no future is left
    behind."""
    results = await asyncio.gather(
        *(_write(producer, topic, partition, parts) for (topic, partition), parts in targets.items()),
        return_exceptions=True,
    )
    offsets: dict[tuple[str, int], int] = {}
    for target, result in zip(targets, results, strict=True):
        if isinstance(result, BaseException):
            raise result
        offsets[target] = result
    return offsets


async def _write(producer: AIOKafkaProducer, topic: str, partition: int, parts: Sequence[Rows]) -> int:
    """One partition's rows, in order, over as many record batches as they need. Returns the last row's offset."""
    futures = []
    last = -1
    try:
        for batch in pack(parts):
            futures.append((await producer.send_batch(batch, topic, partition=partition), batch.record_count()))
        for future, count in futures:
            last = (await future).offset + count - 1
    except _TOO_LARGE as error:
        raise RowTooLarge(topic, max(part.largest for part in parts)) from error
    finally:
        for future, _ in futures:
            future.cancel()  # a no-op for what is done; the rest has failed with the first
    return last


async def _close(producer: AIOKafkaProducer) -> None:
    """Close without waiting for what a broker that is away will not take: `stop` alone would wait for it for ever."""
    producer._closed = True
    sender = producer._sender
    if sender.sender_task is not None:
        try:
            await asyncio.wait_for(sender.close(), _CLOSE_TIMEOUT)
        except (TimeoutError, kafka_errors.KafkaError):
            sender.sender_task.cancel()
    await producer.client.close()
    waiters = [batch._drain_waiter for queue in producer._message_accumulator._batches.values() for batch in queue]
    for waiter in (producer._txn_manager._transaction_waiter, *waiters):
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()  # reported already, by what was awaited; asyncio would log each of these once more
