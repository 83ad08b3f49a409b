"""The audit: does each partition's ledger balance, and do the dead-letter and late topics hold what it says?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from confluent_kafka import Message

from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import dead_letter_topic, late_topic
from tidegate.headers import headers_of
from tidegate.record import Stage, TopicPartition
from tidegate.store.base import PartitionRow
from tidegate.store.distinct import DistinctOffsets
from tidegate.store.progress import not_read
from tidegate.store.reading import TopicReader

# The headers that the audit reads. dlq/headers.py has them all, but imports go the other way; a test compares the two.
DLQ_ID, DLQ_STAGE, DLQ_ERROR_TYPE = "tidegate.dlq.id", "tidegate.dlq.stage", "tidegate.dlq.error.type"
DLQ_PIPELINE = "tidegate.dlq.pipeline"
LATE_ID, LATE_PARTIAL = "tidegate.late.id", "tidegate.late.partial"
LATE_RECORD = "LateRecord"

_SETTLE = 3.0  # seconds: the store commits before Kafka, so that a running worker's topics are a transaction behind
_STAGES = frozenset(stage.value for stage in Stage)


@dataclass(frozen=True, slots=True)
class PartitionAudit:
    """One partition's ledger with what was found in the topics; None: not looked for. `note`: why nobody reads it any more."""

    row: PartitionRow
    dead_letter_ids: int | None
    late_ids: int | None
    problems: tuple[str, ...]
    note: str | None = None

    @property
    def balanced(self) -> bool:
        return not self.problems

    def document(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "topic": self.row.tp.topic,
            "partition": self.row.tp.partition,
            "upto": self.row.state.upto,
            **asdict(self.row.state.ledger),
            "deadLetterIds": self.dead_letter_ids,
            "lateIds": self.late_ids,
            "balanced": self.balanced,
            "problems": list(self.problems),
            "note": self.note,
        }


@dataclass(slots=True)
class Seen:
    """What the topics hold of one source partition."""

    dead_lettered: DistinctOffsets = field(default_factory=DistinctOffsets)
    late: DistinctOffsets = field(default_factory=DistinctOffsets)


class Audit:
    """Reads the dead-letter and late topics of a pipeline and compares them with its ledgers."""

    def __init__(self, pipeline: Pipeline, reader: TopicReader) -> None:
        self._pipeline, self._reader = pipeline, reader
        self._dead_letters, self._late = dead_letter_topic(pipeline), late_topic(pipeline)
        to_dead_letters = pipeline.late_data.strategy == "sendToDLQ" and self._dead_letters is not None
        self._checks_late = self._late is not None or to_dead_letters
        self._expired: set[str] = set()

    def run(self, rows: list[PartitionRow]) -> list[PartitionAudit]:
        """1. read both topics to their ends 2. compare 3. where something lacks, read on for what was in flight.

        Raises BrokerUnavailable.
        """
        seen = {row.tp: Seen() for row in rows}
        self._reader.start(self._beginnings())
        for message in self._reader.to_the_end():
            self._note(message, seen)
        audits = [self._compare(row, seen[row.tp]) for row in rows]
        if all(audit.balanced for audit in audits):
            return audits
        for message in self._reader.for_a_while(_SETTLE):
            self._note(message, seen)
        return [self._compare(row, seen[row.tp]) for row in rows]

    def _beginnings(self) -> dict[TopicPartition, int]:
        starts: dict[TopicPartition, int] = {}
        for topic in {self._dead_letters, self._late} - {None}:
            assert topic is not None
            for partition in self._reader.partitions(topic):
                low, _ = self._reader.bounds(TopicPartition(topic, partition))
                starts[TopicPartition(topic, partition)] = low
                if low > 0:
                    self._expired.add(topic)
        return starts

    def _note(self, message: Message, seen: Mapping[TopicPartition, Seen]) -> None:
        """Count one record of either topic, if it is of a partition of this pipeline.

        A record that was late for some of its windows only counts elsewhere: its id names the stage.
        """
        topic, headers = message.topic(), _headers(message)
        place, is_late, partial = None, False, headers.get(LATE_PARTIAL) == b"true"
        if topic == self._dead_letters and DLQ_ID in headers:
            if headers.get(DLQ_PIPELINE) not in (None, self._pipeline.pipeline_id.encode()):
                return
            name = headers[DLQ_ID].decode(errors="replace")
            place, partial = parse_id(name), name.endswith(f"-{Stage.EVENT_TIME}")
            is_late = headers.get(DLQ_STAGE) == b"event_time" and headers.get(DLQ_ERROR_TYPE) == LATE_RECORD.encode()
        elif topic == self._late and LATE_ID in headers:
            place, is_late = parse_id(headers[LATE_ID].decode(errors="replace")), True
        if place is None or place[0] not in seen:
            return
        tp, offset = place
        if not is_late:
            seen[tp].dead_lettered.add(offset)
        elif not partial:
            seen[tp].late.add(offset)

    def _compare(self, row: PartitionRow, seen: Seen) -> PartitionAudit:
        ledger, upto = row.state.ledger, row.state.upto
        problems: list[str] = []
        if not ledger.balanced:
            problems.append(
                f"read {ledger.read}, but {ledger.accounted} are accounted for: {_off(ledger.accounted - ledger.read)}"
            )
        dead = seen.dead_lettered.count(upto) if self._dead_letters is not None else None
        if dead is not None and dead != ledger.dead_lettered:
            problems.append(self._differs("dead-lettered", ledger.dead_lettered, dead, self._dead_letters))
        late = seen.late.count(upto) if self._checks_late else None
        if late is not None and late != ledger.late:
            problems.append(self._differs("late", ledger.late, late, self._late or self._dead_letters))
        return PartitionAudit(row, dead, late, tuple(problems), not_read(self._pipeline, row.tp))

    def _differs(self, what: str, counted: int, found: int, topic: str | None) -> str:
        old = "; its beginning has expired (retention)" if topic in self._expired else ""
        return f"{counted} {what}, but {found} different ids in topic {topic}: {_off(found - counted)}{old}"


def parse_id(record_id: str) -> tuple[TopicPartition, int] | None:
    """Partition and offset of `topic-partition-offset[-stage]`; None for anything else."""
    head, _, last = record_id.rpartition("-")
    parts = (head if last in _STAGES else record_id).rsplit("-", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    return TopicPartition(parts[0], int(parts[1])), int(parts[2])


def _headers(message: Message) -> dict[str, bytes]:
    return {name: value for name, value in headers_of(message) if value is not None}


def _off(difference: int) -> str:
    return f"{difference} too many" if difference > 0 else f"{-difference} missing"
