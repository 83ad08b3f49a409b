"""Dead letters from their topic into S3: an object is there before the offsets of its records are committed.

The batch's transaction has put them into the topic, where they are safe: to wait for S3 there would hold up every batch with
a dead letter by the time of a request, make an object of each, and stop the pipeline when S3 is away. Here they are gathered:

1. agree    which records are written together is committed first, as the metadata of the group's offset
2. write    their objects (one for each hour and stage), with retries and a breaker; what is there already is overwritten
3. commit   the offset behind them

Whoever repeats 2, after a crash at any point or as a zombie, writes the same records under the same names. Processes of one
pipeline (workers, runs on Spark) are one consumer group, and share the partitions.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from dlq.envelope import Envelope
from dlq.reader import assign_committed, member_options
from dlq.s3.bucket import Bucket
from dlq.s3.buffer import Buffer
from dlq.s3.files import CONTENT_TYPES, Kept, encode
from dlq.s3.naming import Cut, folder, object_name
from dlq.s3.progress import Progress
from dlq.s3.telling import Telling
from dlq.trim import delete_before
from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import dead_letter_topic, letters_topic
from tidegate.errors import BrokerUnavailable, BucketUnavailable, CircuitOpen, DependencyError, TidegateError
from tidegate.headers import headers_of
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)
_POLL_RECORDS = 500
_MORE = 0.02  # seconds for what is under way from the broker already
_LOOK = 0.5  # seconds between looks at what is due
_TIMEOUT = 15.0  # seconds for an answer of the broker
_OUTAGE = (1.0, 30.0)  # seconds: first and longest wait after a failure when no breaker says how long
_MEMORY = 4  # times bufferBytes: what all partitions together may hold


class _Stopped(Exception):
    """The process ends: nobody waits for S3 any more."""


class Uploader:
    """A thread of its own. `start`, then `stop`; `finish` waits until all that the topic has is in S3."""

    def __init__(self, pipeline: Pipeline, bucket: Bucket, *, metrics: Metrics | None = None) -> None:
        topic = letters_topic(pipeline)
        assert topic is not None
        self.group = f"{pipeline.pipeline_id}-dlq-s3"
        self._pipeline, self._bucket, self._topic = pipeline, bucket, topic
        self._telling = Telling(metrics, self.group, topic)
        self._config = pipeline.error_handling.dead_letter_queue.config
        self._is_ours = topic != dead_letter_topic(pipeline)  # then what is in S3 is not needed in the topic any more
        self._guard = Guard("s3", pipeline.error_handling, sleep=self._stay)
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._unassigned: KafkaException | None = None
        self._stopping, self._hurry = threading.Event(), threading.Event()
        self._deadline = float("inf")
        self._not_before, self._outage = 0.0, _OUTAGE[0]
        self.trouble: str | None = None
        """Why nothing is written at the moment."""
        self._thread = threading.Thread(target=self._run, name="dlq-s3", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, within: float) -> None:
        """Write what is gathered, if S3 takes it within so many seconds; else it stays in the topic for the next one."""
        self._deadline = time.monotonic() + within
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(within)

    def finish(self, patience: float = 60.0) -> None:
        """Wait until everything that the topic has now is in S3, whichever process writes it.

        Raises BucketUnavailable, or BrokerUnavailable, when nothing moves for `patience` seconds.
        """
        self._hurry.set()
        with Progress(self._pipeline.kafka, self.group, self._topic) as progress:
            ends = progress.ends()
            left, moved = progress.left(ends), time.monotonic()
            while left:
                if time.monotonic() - moved > patience:
                    wait = f"{left} offsets of dead letters wait in topic {self._topic}; a worker or the next run writes them"
                    raise BucketUnavailable(f"{self.trouble or 'nothing was written for a while'}; {wait}")
                time.sleep(0.1)
                before, left = left, progress.left(ends)
                if left < before:
                    moved = time.monotonic()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._session()
            except _Stopped:
                return
            except Exception as error:  # whatever it is: what is not committed is read again
                expected = isinstance(error, TidegateError | KafkaException)
                log.warning("dlq.s3.failed", error=str(error), exc_info=None if expected else error)
                self._stopping.wait(_OUTAGE[0])

    def _session(self) -> None:
        """One membership of the group."""
        self._unassigned = None
        self._consumer = Consumer(member_options(self._pipeline.kafka, self.group))
        try:
            self._consumer.subscribe(
                [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
            )
            while not self._stopping.is_set():
                self._gather()
                self._write_due()
                self._telling.lag(self._consumer, self._buffers.values())
            self._hurry.set()
            self._write_due()
        finally:
            self._buffers.clear()
            self._consumer.close()

    # Reading

    def _assigned(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        def begin(one: KafkaPartition) -> None:
            tp = TopicPartition(one.topic, one.partition)
            self._buffers[tp] = Buffer(tp, _agreed(one.metadata), max(one.offset, -1))

        self._unassigned = assign_committed(consumer, partitions, _TIMEOUT, begin) or self._unassigned

    def _revoked(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        """What is gathered of them is read again by the next owner."""
        for one in partitions:
            self._buffers.pop(TopicPartition(one.topic, one.partition), None)

    def _gather(self) -> None:
        """Read on until something is due; and while more is there already, up to what an object may have: each object costs a
        request and two commits, whatever is in it."""
        timeout = self._until_due()
        while messages := self._consume(timeout):
            for message in messages:
                self._take(message)
            if len(messages) < _POLL_RECORDS or self._gathered >= self._config.buffer_bytes:
                return
            timeout = _MORE

    def _consume(self, timeout: float) -> list[Message]:
        messages = self._consumer.consume(_POLL_RECORDS, timeout=timeout)
        if self._unassigned is not None:
            raise self._unassigned
        return messages

    @property
    def _gathered(self) -> int:
        """Bytes, of all partitions."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def _take(self, message: Message) -> None:
        topic, partition, offset = cast(str, message.topic()), cast(int, message.partition()), message.offset()
        buffer = self._buffers.get(TopicPartition(topic, partition))
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            log.warning("dlq.s3.unread", topic=topic, partition=partition, error=error.str())
        if buffer is None or offset is None:
            return
        if error is None:
            kept = Kept(buffer.tp, offset, message.timestamp()[1], message.key(), message.value(), headers_of(message))
            buffer.add(kept, time.monotonic())
        elif error.code() == KafkaError._PARTITION_EOF and not buffer.records and 0 <= buffer.committed < offset:
            with suppress(BrokerUnavailable):  # so that only what waits is behind the group's offset, not markers
                self._commit(buffer, offset)
                buffer.committed = offset

    def _until_due(self) -> float:
        if self._hurry.is_set():
            return 0.05
        due = min((buffer.due(self._config) for buffer in self._buffers.values()), default=float("inf"))
        first = max(due, self._not_before)
        return max(0.01, min(_LOOK, first - time.monotonic()))

    def _stay(self, seconds: float) -> None:
        """Wait, and stay a member of the group. Nothing more is read meanwhile. Raises _Stopped."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stopping.is_set() and time.monotonic() + left > self._deadline:
                raise _Stopped
            self._consumer.pause(self._consumer.assignment())
            for message in self._consume(min(left, 0.2)):
                self._take(message)

    # Writing

    def _write_due(self) -> None:
        now = time.monotonic()
        if now < self._not_before and not self._stopping.is_set():
            return
        all_of_them = self._hurry.is_set() or self._gathered >= _MEMORY * self._config.buffer_bytes
        for buffer in list(self._buffers.values()):
            if not buffer.records or (buffer.due(self._config) > now and not all_of_them):
                continue
            try:
                self._write(buffer)
            except TidegateError as error:
                self._wait_out(error)
                return
        if self.trouble is not None:
            log.info("dlq.s3.resumed", topic=self._topic)
            self._consumer.resume(self._consumer.assignment())
            self.trouble, self._outage = None, _OUTAGE[0]

    def _write(self, buffer: Buffer) -> None:
        """The three acts. Raises DependencyError, ConfigError when S3 refuses; the buffer is kept then."""
        cut, kept = buffer.cut()
        if not self._has(buffer):
            return
        objects = self._objects(cut, kept)
        if objects and buffer.upto is None:
            self._commit(buffer, cut.first, json.dumps({"upto": cut.last}))
            buffer.upto = cut.last
        for name, records in objects.items():
            body, begun = encode(records, self._config.format), time.monotonic()
            self._guard.call(self._bucket.put, name, body, CONTENT_TYPES[self._config.format])
            self._telling.uploaded(len(records), time.monotonic() - begun)
            if not self._has(buffer):
                return  # another process has the partition, and the cut that was agreed on
        self._commit(buffer, cut.last + 1)
        buffer.drop(cut, time.monotonic())
        log.debug("dlq.s3.written", partition=str(cut.tp), upto=cut.last, records=len(kept), objects=len(objects))
        if self._is_ours:
            delete_before(self._pipeline.kafka, {cut.tp: cut.last + 1})

    def _objects(self, cut: Cut, kept: Sequence[Kept]) -> dict[str, list[tuple[Kept, Envelope]]]:
        """Name → records. Another pipeline's, in a topic that several share, are for its own processes to write."""
        objects: dict[str, list[tuple[Kept, Envelope]]] = {}
        for one in kept:
            envelope = one.envelope
            if envelope.pipeline == self._pipeline.pipeline_id:
                place = folder(envelope, self._config.prefix, by_stage=self._config.partition_by_stage)
                objects.setdefault(object_name(place, cut, self._config.format), []).append((one, envelope))
        return objects

    def _has(self, buffer: Buffer) -> bool:
        return self._buffers.get(buffer.tp) is buffer

    def _commit(self, buffer: Buffer, offset: int, metadata: str = "") -> None:
        place = KafkaPartition(buffer.tp.topic, buffer.tp.partition, offset, metadata)
        try:
            self._consumer.commit(offsets=[place], asynchronous=False)
        except KafkaException as error:  # away, or the group is being shared out anew: then `consume` says so
            raise BrokerUnavailable(f"{self.group}: {error.args[0].str()}") from error

    def _wait_out(self, error: TidegateError) -> None:
        if self._stopping.is_set():
            raise _Stopped from error
        pause = error.retry_after_ms / 1000 if isinstance(error, CircuitOpen) else self._outage
        self._outage = min(self._outage * 2, _OUTAGE[1])
        self._not_before, self.trouble = time.monotonic() + pause, str(error)
        self._consumer.pause(self._consumer.assignment())
        say = log.warning if isinstance(error, DependencyError) else log.error
        say("dlq.s3.waiting", seconds=round(pause, 3), error=str(error))
        self._telling.failed()


def open_uploader(pipeline: Pipeline, *, metrics: Metrics | None = None) -> Uploader | None:
    """What writes this pipeline's dead letters to S3; None when none go there.

    Raises ConfigError for a bucket that is not there, or cannot be used. One that cannot be reached is waited for.
    """
    queue = pipeline.error_handling.dead_letter_queue
    if not queue.goes_to("s3"):
        return None
    bucket = Bucket(queue.config, queue.config.bucket or "")
    try:
        bucket.check()
    except BucketUnavailable as error:
        log.warning("dlq.s3.unreachable", error=str(error))
    return Uploader(pipeline, bucket, metrics=metrics)


def _agreed(metadata: str | None) -> int | None:
    """Up to where the next object goes, if that is agreed; anything else was written by whoever has set the group's offsets."""
    try:
        return int(json.loads(metadata)["upto"]) if metadata else None
    except (ValueError, TypeError, KeyError):
        return None
