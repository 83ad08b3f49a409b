"""Replays without processes: real topics and a real index; the worker is played by a few lines, so that a test says what it
does, and when."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from dlq.index.database import IndexDatabase
from dlq.index.filters import LetterFilter
from dlq.index.letters import index_row
from dlq.index.masking import Masker
from dlq.index.writer import IndexWriter
from dlq.kind import Kinds
from dlq.letter import Letter, RawRecord
from dlq.replay.jobs import LEASE, Job
from dlq.replay.outgoing import ByHand
from dlq.replay.request import Request
from dlq.replay.run import Run
from dlq.service import DeadLetterIndex, open_index
from dlq.writing import LetterWriter
from tests.harness import Message, produce, read_topic
from tests.providers.kafka import KafkaTopics
from tidegate import record as names
from tidegate.clock import SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.config.queue import DeadLetterConfig
from tidegate.ledger import Ledger
from tidegate.record import Stage
from tidegate.stages.batch import PartitionState, RawBatch, Reason, Rejection
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import compile_plan
from tidegate.stages.repeats import drop_repeats

PARTITIONS = 3
FIRST = 1_000_000  # the offset of the first record that failed: no replay comes there
Refuses = Callable[[Message], bool]


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


@contextmanager
def replay_scene(kafka: KafkaTopics, url: str, **settings: Any) -> Iterator[ReplayScene]:
    """A scene, closed whatever happens in it or while it is made: a connection that is left open fails the next test."""
    with ExitStack() as opened:
        yield ReplayScene(opened, kafka, url, **settings)


class ReplayScene:
    """A pipeline with topics of its own. `settings`: of the block `deadLetters`. `opened`: closes what it opens."""

    def __init__(self, opened: ExitStack, kafka: KafkaTopics, url: str, **settings: Any) -> None:
        self.kafka, self.url, self.rule = kafka, url, "small"
        self.id = f"c-{uuid.uuid4().hex[:8]}"
        self.source = kafka.topic(partitions=PARTITIONS, name=f"{self.id}.source")
        self.dlq = kafka.topic(partitions=PARTITIONS, name=f"{self.id}.dlq")
        self.configure(**settings)
        database = opened.enter_context(closing(IndexDatabase(url, self.pipeline.dead_letters)))
        database.prepare()
        self._writer = IndexWriter(database)
        self.index: DeadLetterIndex = opened.enter_context(open_index(self.pipeline))
        self._positions = dict.fromkeys(range(PARTITIONS), 0)
        self._replays = dict.fromkeys(range(PARTITIONS), b"")

    def configure(self, **settings: Any) -> None:
        self.pipeline = Pipeline.model_validate(
            {
                "pipelineId": self.id,
                "kafka": {"bootstrapServers": self.kafka.bootstrap_servers},
                "source": {"topics": [self.source]},
                "schema": [{"name": "n", "type": "bigint"}, {"name": "card", "type": "string"}],
                "rules": [{"name": "small", "type": "range", "column": "n", "max": 100}],
                "deadLetters": {"index": self.url, **settings},
            }
        )

    def letters(self, numbers: Iterable[int], *, topic: str | None = None, **record: Any) -> None:
        """Dead letters of records with these numbers, of the source (or of `topic`), written and indexed."""
        rows = []
        for n in numbers:
            tp = names.TopicPartition(topic or self.source, n % PARTITIONS)
            raw = RawRecord(tp, FIRST + n, 5, **{"key": b"k%d" % n, "value": b'{"n": %d}' % n, **record})
            rows.append(self._dead(raw, n))
        produce(self.kafka.bootstrap_servers, self.dlq, rows)
        self.reindex()

    def id_of(self, n: int) -> str:
        """The id of the letter of record `n` of the source."""
        return f"{self.source}-{n % PARTITIONS}-{FIRST + n}"

    def reindex(self) -> None:
        """As the index agent does."""
        masker = Masker(self.pipeline.dead_letters.masking)
        by_partition: dict[int, list[Message]] = {}
        for message in self.read(self.dlq):
            by_partition.setdefault(message.partition, []).append(message)
        for partition, messages in by_partition.items():
            tp = names.TopicPartition(self.dlq, partition)
            self._writer.write(tp, [index_row(m, tp, masker) for m in messages], messages[-1].offset)

    def transaction(self) -> Producer:
        """A producer for `work`, whose transactions the test begins and ends."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "transactional.id": self.id})
        producer.init_transactions(30)
        return producer

    def work(self, refuses: Refuses = lambda message: False, producer: Producer | None = None) -> int:
        """What the pipeline's worker does with what is new in the source: refused records become dead letters, and then the
        group's offsets are committed. Returns how many it read. `producer`: writes the dead letters, in its transaction."""
        fresh = [m for m in self.read(self.source) if m.offset >= self._positions[m.partition]]
        dead, dropped = [], self._repeats(fresh)
        for message in (m for m in fresh if (m.partition, m.offset) not in dropped and refuses(m)):
            tp = names.TopicPartition(self.source, message.partition)
            raw = RawRecord(tp, message.offset, message.timestamp, message.key, message.value, message.headers)
            dead.append(self._dead(raw, message.offset))
        if producer is None:
            produce(self.kafka.bootstrap_servers, self.dlq, dead)
        else:
            for one in dead:
                producer.produce(self.dlq, **one)
            producer.flush(30)
        for message in fresh:
            self._positions[message.partition] = message.offset + 1
        offsets = [TopicPartition(self.source, p, at) for p, at in self._positions.items() if at]
        if fresh:
            consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": self.id})
            consumer.commit(offsets=offsets, asynchronous=False)
            consumer.close()
        if dead and producer is None:
            self.reindex()
        return len(fresh)

    def _repeats(self, messages: Iterable[Message]) -> set[tuple[int, int]]:
        """Partitions and offsets of the replays among them that the stages leave out because they were there before."""
        found = set()
        for raw in self._raw(messages):
            fresh = drop_repeats(raw, self._replays[raw.tp.partition])
            self._replays[raw.tp.partition] = fresh.memory
            gone = {*raw.records["offset"].to_pylist()} - {*fresh.records["offset"].to_pylist()}
            found |= {(raw.tp.partition, offset) for offset in gone}
        return found

    def ledger(self) -> Ledger:
        """What the stages make of all that is in the source."""
        stages = StagePipeline(compile_plan(self.pipeline))
        try:
            results = [stages.run(raw, PartitionState()) for raw in self._raw(self.read(self.source))]
        finally:
            stages.close()
        return sum((result.ledger for result in results), Ledger())

    def _raw(self, messages: Iterable[Message]) -> list[RawBatch]:
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            by_partition.setdefault(message.partition, []).append(message)
        return [
            RawBatch.of_records(names.TopicPartition(self.source, partition), records)
            for partition, records in by_partition.items()
        ]

    def job(self, *, owner: str = "me", **request: Any) -> Job:
        wanted = request.pop("wanted", LetterFilter())
        return self.index.jobs.create(Request(wanted, **request), actor="ada", owner=owner)

    def start(self, job: Job, by_hand: ByHand | None = None) -> Run:
        return Run(self.pipeline, self.index.jobs, job, by_hand=by_hand)

    def taken_over(self, monkeypatch: pytest.MonkeyPatch) -> Job:
        """The job in the hands of another agent, once the lease is over."""
        now = self.index.jobs.now() + LEASE + 1
        monkeypatch.setattr(self.index.jobs, "now", lambda: now)
        taken = self.index.jobs.claim("another")
        assert taken is not None
        return taken

    def send_a_chunk(self, job: Job) -> None:
        """Turns of the job until one more chunk is sent, as of an agent that ends then."""
        run = self.start(job)
        chunks = run.job.chunks
        with closing(run):
            while run.job.chunks == chunks:
                run.turn()

    def carry_out(self, job: Job, *, refuses: Refuses = lambda message: False, by_hand: ByHand | None = None) -> Job:
        """Turns of the job, and of the worker, until it is over or waits for somebody."""
        return self.go_on(self.start(job, by_hand), refuses=refuses)

    def go_on(self, run: Run, *, refuses: Refuses = lambda message: False) -> Job:
        """As `carry_out`, of one that is at work."""
        job, until = run.job, time.monotonic() + 60
        with closing(run):
            while (after := run.turn()) is not None:
                if after:  # nothing is to be sent: it waits for the worker
                    self.work(refuses)
                assert time.monotonic() < until, self.outcomes(job)
        return self.index.jobs.get(job.id)

    def outcomes(self, job: Job) -> dict[str, int]:
        return self.index.jobs.outcomes(job.id)

    def read(self, topic: str) -> list[Message]:
        return read_topic(self.kafka.bootstrap_servers, topic)

    def sent(self) -> Counter[str | None]:
        """Dead letter → how often the source has a replay of it."""
        return Counter(message.header("tidegate.replay.of") for message in self.read(self.source))

    def open(self) -> int:
        return int(self.index.reader.stats()["open"])

    def _dead(self, raw: RawRecord, n: int) -> dict[str, Any]:
        failed = Rejection(
            raw.offset, Stage.VALIDATE, (Reason("RuleViolation", f"{n} is too much", rule=self.rule, field="n"),)
        )
        kinds = Kinds(pipeline=self.id, schema="s", now_ms=int(SystemClock().time() * 1000))
        key, value, headers = LetterWriter(DeadLetterConfig()).record(Letter.of(failed, raw, kinds))
        return {"key": key, "value": value, "headers": headers, "partition": raw.tp.partition}
