"""The way back: which replays have been read by the pipeline, and which of them are dead letters again.

A chunk is settled in this order, so that nothing is called accepted too early:

1. passed    the group's committed offset is behind the chunk's last offset in every partition: all of it is applied, and
             its dead letters were written before that (worker/commit.py); or the topic has been deleted
2. ends      only then the ends of the dead-letter topics are asked for
3. read      the topics are read up to those ends: what has not come back by then was not dead-lettered
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from dlq import headers as h
from dlq.dialects import last_values
from dlq.dialects.base import text
from dlq.index.letters import indexed_fingerprint, indexed_id
from dlq.reader import dead_letter, reader_options, unavailable
from dlq.replay.deleted import DeletedTopics
from dlq.replay.jobs import Bounds, Chunk
from dlq.replay.names import OK, SENT
from dlq.replay.targets import QUIET, Targets
from tidegate.clock import Clock
from tidegate.config.kafka import Kafka, confluent_options
from tidegate.errors import BrokerUnavailable, ConfigError
from tidegate.headers import REPLAY_JOB, headers_of
from tidegate.record import TopicPartition
from tidegate.store.reading import committed_offsets

_TIMEOUT = 15.0  # seconds
_POLL_RECORDS, _POLL_SECONDS = 2_000, 0.1
_DELETED = 5.0  # seconds between looks whether what nobody has read yet is still there
_DIGITS = 18  # of a position; anybody can write the header, and Python refuses to read thousands of them


class Again(NamedTuple):
    """The dead letter that a replay became: its topic, its id and fingerprint as the index has them, and whether the replay
    was mended."""

    topic: str
    id: str
    fingerprint: str
    mended: bool


class DeadLetterTail:
    """The dead-letter topics from where a job began, read for what comes back of it. One thread."""

    def __init__(self, kafka: Kafka, topics: Sequence[str], job: str) -> None:
        self._kafka, self._topics, self._prefix = kafka, topics, f"{job}/"
        self._reasons: list[str] = []
        self._consumer = Consumer(reader_options(kafka, self._reasons) | {"auto.offset.reset": "earliest"})
        # The end that counts is that of all records, also of those whose transaction is still being settled.
        options = confluent_options(kafka) | {"group.id": "tidegate-ends", "isolation.level": "read_uncommitted"}
        self._ends = Consumer(options | QUIET)
        self.next: Bounds = {}
        """The next offset to be read of each partition."""
        self.found: dict[int, Again] = {}
        """Position in the job → what came back, since `take`."""

    def ends(self) -> Bounds:
        """Where each partition of the topics ends now; a topic that has never been there has none. Raises BrokerUnavailable."""
        ends: Bounds = {}
        try:
            for topic in self._topics:
                found = self._ends.list_topics(topic, timeout=_TIMEOUT).topics[topic]
                known = any(tp.topic == topic for tp in self.next)
                if found.error is not None and (known or found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART):
                    # Without its ends all that was sent would be called accepted.
                    raise unavailable(self._kafka, self._reasons, f"topic {topic!r}: {found.error.str()}")
                for partition in found.partitions:
                    place = KafkaPartition(topic, partition)
                    ends[TopicPartition(topic, partition)] = int(self._ends.get_watermark_offsets(place, _TIMEOUT)[1])
        except KafkaException as error:
            raise unavailable(self._kafka, self._reasons, error.args[0].str()) from error
        return ends

    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on."""
        self.next = dict(offsets)
        self._consumer.assign([KafkaPartition(*tp, offset) for tp, offset in offsets.items()])

    def read(self, upto: Bounds, *, wait: bool = True) -> bool:
        """Read on for a moment, or only what is there already. True when everything before these ends has been read."""
        fresh = {tp: 0 for tp in upto if tp not in self.next}
        if fresh:  # a topic grew: the new partitions are read from their beginning
            self.start(self.next | fresh)
        for message in self._consumer.consume(_POLL_RECORDS, timeout=_POLL_SECONDS if wait else 0.0):
            error = message.error()
            if error is None:
                self._look_at(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._reach(message, cast(int, message.offset()))
            elif not error.retriable():
                raise BrokerUnavailable(f"reading what came back: {error.str()}")
        return all(self.next[tp] >= end for tp, end in upto.items())

    def take(self) -> dict[int, Again]:
        """What came back since the last call."""
        found, self.found = self.found, {}
        return found

    def close(self) -> None:
        self._consumer.close()
        self._ends.close()

    def _look_at(self, message: Message) -> None:
        self._reach(message, cast(int, message.offset()) + 1)
        values = last_values(headers_of(message))
        place = text(values, REPLAY_JOB)
        if place is None or not place.startswith(self._prefix):
            return
        position = place.removeprefix(self._prefix)
        if position.isascii() and position.isdigit() and len(position) <= _DIGITS:
            letter = dead_letter(message)
            envelope, mended = letter.envelope, h.REPLAY_EDITED in values
            self.found[int(position)] = Again(
                letter.topic, indexed_id(envelope.id), indexed_fingerprint(envelope), mended
            )

    def _reach(self, message: Message, offset: int) -> None:
        tp = TopicPartition(cast(str, message.topic()), cast(int, message.partition()))
        self.next[tp] = max(self.next.get(tp, 0), offset)


class Positions:
    """How far the groups are that read the topics replayed to. One thread."""

    def __init__(self, kafka: Kafka) -> None:
        self._options = confluent_options(kafka) | QUIET | {"enable.auto.commit": False}
        self._consumers: dict[str, Consumer] = {}

    def unread(self, group: str, bounds: Bounds) -> set[TopicPartition]:
        """The partitions in which the group has not committed an offset behind this one. Raises BrokerUnavailable."""
        if group not in self._consumers:
            self._consumers[group] = Consumer(self._options | {"group.id": group})
        try:
            asked = [KafkaPartition(*tp) for tp in bounds]
            found = committed_offsets(self._consumers[group], asked, _TIMEOUT)
        except KafkaException as error:
            raise BrokerUnavailable(f"the offsets of group {group}: {error.args[0].str()}") from error
        offsets = {TopicPartition(one.topic, one.partition): one.offset for one in found}
        return {tp for tp, offset in offsets.items() if offset <= bounds[tp]}

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()


@dataclass(frozen=True, slots=True)
class Passed:
    """A chunk that is waited for no more. `outcome`: of what has not come back when the dead-letter topics are read up to
    these `ends`; but what was sent to the topics that have been `deleted` was perhaps never read."""

    chunk: Chunk
    outcome: str
    ends: Bounds = field(default_factory=dict)
    deleted: frozenset[str] = frozenset()


class WayBack:
    """What comes back of one job. One thread. All methods raise BrokerUnavailable."""

    def __init__(self, kafka: Kafka, topics: Sequence[str], job: str, targets: Targets, clock: Clock) -> None:
        self.tail = DeadLetterTail(kafka, topics, job)
        self._positions, self._deleted = Positions(kafka), DeletedTopics(kafka, clock)
        self._targets, self._clock = targets, clock
        self._passed: Passed | None = None
        self._look_again = 0.0

    def read(self) -> Passed | None:
        """Act 3, for a moment: read on. The chunk that had passed, when all that can have come back of it has been read."""
        passed = self._passed
        reached = self.tail.read({} if passed is None else passed.ends, wait=passed is not None)
        if passed is None or not reached:
            return None
        self._passed = None
        return passed

    def look(self, chunk: Chunk) -> Passed | None:
        """Acts 1 and 2, unless a chunk has passed and is yet to be read for. The chunk at once, if nobody is known to read it."""
        if self._passed is not None:
            return None
        by_group: dict[str, Bounds] = {}
        for tp, offset in chunk.bounds.items():
            group = self._targets.group_of(tp.topic)
            if group is not None:
                by_group.setdefault(group, {})[tp] = offset
        if not by_group:
            return Passed(chunk, SENT)
        unread = {tp for group, bounds in by_group.items() for tp in self._positions.unread(group, bounds)}
        deleted = self._deleted_among({tp: chunk.bounds[tp] for tp in unread})
        if deleted == {tp.topic for tp in unread}:
            self._passed = Passed(chunk, OK, self.tail.ends(), deleted)
        return None

    def require_there(self, topics: set[str]) -> None:
        """Raises ConfigError for one that has been deleted."""
        for topic in sorted(self._deleted.among(topics)):
            raise ConfigError(
                "the topic to replay to was deleted",
                value=topic,
                expected="a topic of this cluster",
                hint="resume the job, and what goes to other topics is sent; cancel it, and the rest can go elsewhere: --to",
            )

    def close(self) -> None:
        self.tail.close()
        self._positions.close()

    def _deleted_among(self, unread: Bounds) -> frozenset[str]:
        now = self._clock.monotonic()
        if not unread or now < self._look_again:
            return frozenset()
        self._look_again = now + _DELETED
        deleted = self._deleted.among({tp.topic for tp in unread})
        rest = {tp: at for tp, at in unread.items() if tp.topic not in deleted}
        return deleted | self._deleted.made_anew(rest) if rest else deleted
