"""Sends back what is due. A record waits in its topic and nowhere else, so a wait survives every end of the process.

1. look      at the head of each partition; one that is not due holds up those behind it, which are due later
2. send      all that are due back to their source topics, in one Kafka transaction
3. offsets   of what was sent, in the same transaction

The group's metadata goes with the offsets (KIP-447), so that Kafka refuses the transaction of a process that has lost the
partition. Nothing is sent twice, nothing is forgotten, and a key's records keep their order within a delay. A record that its
topic does not take holds up its partition and no other (dlq/retry/line.py).
"""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from typing import cast

import structlog
from confluent_kafka import Consumer, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from dlq.bounded import send_offsets
from dlq.reader import assign_committed, member_options
from dlq.replay.targets import QUIET
from dlq.retry.line import MOST, Line
from dlq.retry.rows import going_back, waiting
from dlq.trim import Trimmer
from tidegate.clock import Clock, SystemClock
from tidegate.config.kafka import confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import retry_prefix
from tidegate.errors import BrokerUnavailable, TidegateError
from tidegate.headers import headers_of
from tidegate.record import TopicPartition
from tidegate.telemetry import metric_defs as m
from tidegate.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)
_POLL = 0.2  # seconds; nothing is sent later than that after it is due
_POLL_RECORDS = 500
_TIMEOUT = 15.0  # seconds for each act of a transaction
_TRANSACTION = 15_000  # ms; a killed process's transaction holds up readers of the source topics for so long
_OUTAGE = (0.5, 10.0)  # seconds: first and longest wait after a failure
_NEW_TOPICS = 5_000  # ms between looks for retry topics that a worker has made


Shares = dict[TopicPartition, list[Message]]
"""What is due of each partition, from its head on."""


class NotTaken(BrokerUnavailable):
    """A topic does not take its records, whatever others do. `in_transaction`: one has begun, and is to be aborted."""

    def __init__(self, message: str, *, in_transaction: bool = False) -> None:
        super().__init__(message)
        self.in_transaction = in_transaction


class RetryAgent:
    """A thread of its own. Several agents share the partitions."""

    def __init__(self, pipeline: Pipeline, *, metrics: Metrics | None = None, clock: Clock | None = None) -> None:
        self.group = f"{pipeline.pipeline_id}-dlq-retry"
        self._pipeline, self._metrics, self._clock = pipeline, metrics, clock or SystemClock()
        self._sources = frozenset(pipeline.source.topics if pipeline.source else ())
        self._lines: dict[TopicPartition, Line] = {}
        self._unassigned: KafkaException | None = None
        self._counts: dict[str, int] = {}  # partitions of the source topics
        self._trimmer = Trimmer(pipeline.kafka, self._clock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, within: float) -> None:
        """What is in hand is sent or not; the next agent goes on there."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(within)

    def _run(self) -> None:
        wait = _OUTAGE[0]
        while not self._stopping.is_set():
            try:
                self._session()
                wait = _OUTAGE[0]
            except Exception as error:  # whatever it is: what was not committed was not sent
                expected = isinstance(error, TidegateError | KafkaException)
                log.warning("retry.waiting", seconds=wait, error=str(error), exc_info=None if expected else error)
                self._stopping.wait(wait)
                wait = min(wait * 2, _OUTAGE[1])

    def _session(self) -> None:
        """One membership of the group, with one producer. Raises KafkaException, BrokerUnavailable: begin anew."""
        options = {
            **member_options(self._pipeline.kafka, self.group),
            "topic.metadata.refresh.interval.ms": _NEW_TOPICS,
            "allow.auto.create.topics": False,
            "enable.partition.eof": False,
        }
        self._lines, self._unassigned = {}, None
        consumer, self._producer = Consumer(options), self._new_producer()
        try:
            self._producer.init_transactions(_TIMEOUT)
            pattern = "^" + retry_prefix(self._pipeline.pipeline_id).replace(".", "\\.") + ".*"
            consumer.subscribe([pattern], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
            while not self._stopping.is_set():
                messages = consumer.consume(_POLL_RECORDS, timeout=_POLL)
                if self._unassigned is not None:
                    raise self._unassigned
                for message in messages:
                    self._take(message)
                while not self._stopping.is_set() and (due := self._due()) and self._try(consumer, due):
                    pass
                self._hold_back(consumer)
                self._trimmer.trim()
        finally:
            self._producer.purge()
            with suppress(KafkaException, SystemError):
                self._producer.abort_transaction(1.0)
            consumer.close()

    def _new_producer(self) -> Producer:
        options = {
            **confluent_options(self._pipeline.kafka),
            **QUIET,
            "transactional.id": f"tidegate/retry/{self._pipeline.pipeline_id}/{uuid.uuid4().hex}",
            "transaction.timeout.ms": _TRANSACTION,
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.max.bytes": 1_000_000_000,  # the topic decides, not the client
        }
        return Producer(options)

    # Waiting

    def _assigned(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        def begin(one: KafkaPartition) -> None:
            self._lines[TopicPartition(one.topic, one.partition)] = Line()

        self._unassigned = assign_committed(consumer, partitions, _TIMEOUT, begin) or self._unassigned

    def _revoked(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        for one in partitions:
            self._lines.pop(TopicPartition(one.topic, one.partition), None)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            log.warning("retry.unread", error=error.str())
            return
        line = self._lines.get(_place(message))
        if line is not None:
            line.append(message)

    def _due(self) -> Shares:
        """What goes next: the heads of all partitions that are due, and those behind them that are; else those of one partition
        that goes alone."""
        now, together, left = self._clock.monotonic(), Shares(), MOST
        for tp, line in self._lines.items():
            if line.alone is None and (share := self._head(line, left)):
                together[tp] = share
                left -= len(share)
        if together:
            return together
        for tp, line in self._lines.items():
            if line.alone is not None and line.not_before <= now and (share := self._head(line, line.alone)):
                return {tp: share}
        return {}

    def _head(self, line: Line, most: int) -> list[Message]:
        """Those of its records that are due, taken off."""
        now, share = int(self._clock.time() * 1000), list[Message]()
        while line.messages and len(share) < most:
            wait = waiting(headers_of(line.messages[0]))
            if wait is not None and wait.due > now:
                break
            share.append(line.popleft())
        return share

    def _hold_back(self, consumer: Consumer) -> None:
        """A partition of which enough is read rests; the poll goes on, and with it the membership."""
        for tp, line in self._lines.items():
            if line.is_full != line.paused:
                change = consumer.pause if line.is_full else consumer.resume
                change([KafkaPartition(tp.topic, tp.partition)])
                line.paused = line.is_full

    # Sending

    def _try(self, consumer: Consumer, shares: Shares) -> bool:
        """Whether it was sent; what is not taken is given back to its lines. Raises KafkaException, BrokerUnavailable when Kafka
        does not even take it that nothing was sent: begin anew."""
        try:
            self._send(consumer, shares)
        except (KafkaException, NotTaken) as error:
            self._counts.clear()  # a topic may have been deleted: it is asked for, also after a new beginning
            if not isinstance(error, NotTaken) or error.in_transaction:
                self._producer.abort_transaction(_TIMEOUT)
            now = self._clock.monotonic()
            for tp, share in shares.items():
                line = self._lines[tp]
                line.not_taken(share, now, with_others=len(shares) > 1)
                if line.not_before > now:
                    place = f"{tp}@{share[0].offset()}"
                    log.warning("retry.not_taken", place=place, seconds=line.not_before - now, error=str(error))
            return False
        for tp in shares:
            self._lines[tp].taken()
        return True

    def _send(self, consumer: Consumer, shares: Shares) -> None:
        """Acts 2 and 3. Raises KafkaException, BrokerUnavailable: nothing is sent then, or the outcome is unknown, and Kafka
        knows it. NotTaken: nothing is sent."""
        due = [message for share in shares.values() for message in share]
        targets = [self._target(consumer, message) for message in due]
        sent = [target for target in targets if target is not None]
        offsets = {tp: cast(int, share[-1].offset()) + 1 for tp, share in shares.items()}
        self._producer.begin_transaction()
        for message, target in zip(due, targets, strict=True):
            if target is not None:
                self._produce(message, target)
        if left := self._producer.flush(_TIMEOUT):
            raise NotTaken(f"{left} records were not taken within {_TIMEOUT:g} s", in_transaction=True)
        places = [KafkaPartition(tp.topic, tp.partition, offset) for tp, offset in offsets.items()]
        send_offsets(self._producer, places, consumer.consumer_group_metadata())
        self._producer.commit_transaction(_TIMEOUT)
        self._trimmer.note(offsets)
        for target in sent:
            if self._metrics is not None:
                self._metrics.inc(m.DLQ_RETRIES, {"topic": target.topic})
        log.debug("retry.sent", records=len(sent), skipped=len(due) - len(sent))

    def _partitions(self, consumer: Consumer, source: TopicPartition) -> int:
        """How many its topic has; 0 for one that is no source of the pipeline's. Raises NotTaken when that is not known: what has
        nowhere to go is given up."""
        if source.topic in self._sources and source.partition >= self._counts.get(source.topic, 0):  # it has grown
            found = consumer.list_topics(source.topic, timeout=_TIMEOUT).topics[source.topic]
            if found.error is not None:
                raise NotTaken(f"records wait to go back to topic {source.topic!r}: {found.error.str()}")
            self._counts[source.topic] = len(found.partitions)
        return self._counts.get(source.topic, 0)

    def _target(self, consumer: Consumer, message: Message) -> TopicPartition | None:
        """Where it goes back to: a source topic of the pipeline and nowhere else, whatever its headers say."""
        wait = waiting(headers_of(message))
        if wait is not None and 0 <= wait.source.partition < self._partitions(consumer, wait.source):
            return wait.source
        log.error("retry.not_ours", place=f"{_place(message)}@{message.offset()}", says=str(wait and wait.source))
        return None

    def _produce(self, message: Message, target: TopicPartition) -> None:
        headers = going_back(headers_of(message))
        while True:
            try:
                self._producer.produce(
                    target.topic, message.value(), message.key(), target.partition, headers=list(headers)
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return


def _place(message: Message) -> TopicPartition:
    return TopicPartition(cast(str, message.topic()), cast(int, message.partition()))
