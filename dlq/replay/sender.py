"""Sending, each record once: a chunk of a job is one Kafka transaction, and the job's progress is part of it.

1. begin    the job's own transactional id: whoever begins with it last fences all others and settles what they left
2. records  of the chunk
3. progress the chunk's last position, as the offset of a consumer group that is the job's own, and where the records are,
            as its metadata (`sendOffsetsToTransaction`)
4. commit   the records and the progress appear together or not at all

So after a SIGKILL at any point Kafka itself says how far the job is. A progress topic would do the same, and would have to
be made, read to its end and deleted; the database alone cannot, because it and Kafka do not commit together.

Kafka forgets a group of which it hears nothing for `offsets.retention.minutes` (7 days by default). Hence a job files that it
has sent nothing before it is called begun: one that was begun, and of which Kafka knows nothing, has been forgotten.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from dlq.bounded import send_offsets
from dlq.replay.jobs import Bounds, LeaseLost
from dlq.replay.outgoing import Outgoing
from dlq.replay.targets import QUIET
from tidegate.config.kafka import Kafka, confluent_options
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.record import TopicPartition
from tidegate.store.reading import committed_offsets

_TIMEOUT = 30.0  # seconds for each act of a transaction
_TRANSACTION = 60_000  # ms after which the broker aborts the transaction of a sender that has gone silent
_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
_REFUSED = (
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)
_FULL = 0.1  # seconds to wait for room in the producer's queue
_CLIENT = (1_000, 1_000_000_000)  # bytes: what the client can be told of the largest record; topics may take more


class Sender:
    """One job's producer. Not for use by two threads at once. After any error it cannot be used: make a new one."""

    def __init__(self, kafka: Kafka, job: str, anchor: str, *, max_bytes: int, others: Sequence[str] = ()) -> None:
        """Fence earlier owners and learn what they have sent. `anchor`: the topic under which progress is filed; if it is not
        there, because only files have its letters, the first of `others` that is (all owners give the same).

        Raises BrokerUnavailable.
        """
        self._group = group_of(job)
        self._told: list[KafkaError] = []
        options = confluent_options(kafka) | QUIET
        self._producer = Producer(
            {
                **options,
                "transactional.id": f"tidegate/replay/{job}",
                "transaction.timeout.ms": _TRANSACTION,
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.max.bytes": min(max(max_bytes, _CLIENT[0]), _CLIENT[1]),
                "error_cb": self._told.append,
            }
        )
        consumer = {
            **options,
            "group.id": self._group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
        self._consumer = Consumer(consumer)
        self._reached: Bounds = {}
        try:
            self._producer.init_transactions(_TIMEOUT)
            # Only settled offsets are given: read_committed asks for that.
            places = [KafkaPartition(topic, 0) for topic in dict.fromkeys((anchor, *others))]
            found = max(committed_offsets(self._consumer, places, _TIMEOUT), key=lambda place: int(place.offset))
            self._anchor = found.topic if found.offset >= 0 else self._there(places)
        except KafkaException as error:
            self.close()
            raise _error([error.args[0]]) from error
        self.known = int(found.offset) >= 0
        """Whether Kafka knows of the job."""
        self.position = max(0, int(found.offset))
        """The last position that was sent, as Kafka has it; 0: none."""
        self.bounds = _read_bounds(found.metadata) if self.position else Bounds()
        """Each partition's last offset in the transaction that came to that position."""

    def _there(self, places: Sequence[KafkaPartition]) -> str:
        """The first topic that the cluster has. Raises KafkaException."""
        topics = self._consumer.list_topics(timeout=_TIMEOUT).topics
        return next((place.topic for place in places if place.topic in topics), places[0].topic)

    def make_known(self) -> None:
        """File that nothing was sent; in a transaction, too, or whoever was overtaken could file it behind what was. Raises as
        `send`."""
        self.send([], 0)
        self.known = True

    def send(self, records: Sequence[Outgoing], upto: int) -> None:
        """Write the records, and that the job has come to position `upto`, in one transaction.

        Raises LeaseLost (another owner has begun), ConfigError (a topic refuses a record: nothing is written), BrokerUnavailable
        (unknown whether written: a new sender knows).
        """
        self._reached = {}
        self._told.clear()
        try:
            self._producer.begin_transaction()
            lasts = {record.target: number for number, record in enumerate(records)}
            for number, record in enumerate(records):
                self._produce(record, is_last=lasts[record.target] == number)
            if self._producer.flush(_TIMEOUT):  # then it is not known, either, where the last ones are
                raise BrokerUnavailable(f"replaying: Kafka has not taken all records within {_TIMEOUT:g} s")
            offsets = [KafkaPartition(self._anchor, 0, upto, _written_bounds(self._reached))]
            send_offsets(self._producer, offsets, self._consumer.consumer_group_metadata())
            self._producer.commit_transaction(_TIMEOUT)
        except SystemError as error:
            # What the client makes of a fatal error that meets a delivery report. As good as always: fenced.
            self.close()
            raise LeaseLost(
                "the producer has failed for good: another agent may have begun to send for this job"
            ) from error
        except KafkaException as error:
            self.close()
            raise _error([error.args[0], *self._told]) from error
        except BrokerUnavailable:
            self.close()
            raise
        self.position, self.bounds = upto, self._reached

    def close(self) -> None:
        """An open transaction is settled by the next sender, or by its timeout."""
        self._consumer.close()
        self._producer.purge()
        with contextlib.suppress(KafkaException):
            self._producer.abort_transaction(1.0)

    def _produce(self, record: Outgoing, *, is_last: bool) -> None:
        """`is_last`: of its partition, whose records are written in their order. Only of that one is it asked where it is;
        a transaction of which another one was not written cannot be committed."""
        while True:
            try:
                self._producer.produce(
                    record.target.topic,
                    record.value,
                    record.key,
                    record.target.partition,
                    on_delivery=self._delivered if is_last else None,
                    headers=list(record.headers),
                )
            except BufferError:
                self._producer.poll(_FULL)
            else:
                return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if error is not None:
            self._told.append(error)  # the transaction cannot be committed then
        elif topic is not None and partition is not None and offset is not None:
            tp = TopicPartition(topic, partition)
            self._reached[tp] = max(self._reached.get(tp, -1), offset)


def group_of(job: str) -> str:
    """The consumer group whose offset is the job's progress."""
    return f"tidegate-replay-{job}"


def forget_progress(kafka: Kafka, job: str) -> None:
    """The job is over: its group is not needed any more. What cannot be deleted, Kafka forgets by itself in a week."""
    admin = AdminClient(confluent_options(kafka) | QUIET)
    for done in admin.delete_consumer_groups([group_of(job)], request_timeout=_TIMEOUT).values():
        with contextlib.suppress(KafkaException):
            done.result(_TIMEOUT)


def _error(told: Sequence[KafkaError]) -> BrokerUnavailable | ConfigError | LeaseLost:
    if any(one.code() in _FENCED for one in told):
        return LeaseLost("another agent has begun to send for this job")
    if refused := next((one for one in told if one.code() in _REFUSED), None):
        return ConfigError(
            f"a topic does not take what is replayed to it: {refused.str()}",
            hint="see its settings and this user's rights (a compacted topic takes no record without a key), then resume the job",
        )
    return BrokerUnavailable(f"replaying: {told[0].str() if told else 'the producer has failed'}")


def _written_bounds(bounds: Bounds) -> str:
    """Kafka takes 4 096 bytes: a chunk goes to at most MOST_PARTITIONS partitions."""
    listed: dict[str, list[list[int]]] = {}
    for tp, offset in bounds.items():
        listed.setdefault(tp.topic, []).append([tp.partition, offset])
    return json.dumps(listed, separators=(",", ":"))


def _read_bounds(written: str | None) -> Bounds:
    listed = json.loads(written or "{}")
    return {TopicPartition(topic, partition): offset for topic, pairs in listed.items() for partition, offset in pairs}
