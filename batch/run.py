"""A run of the second engine from start to end."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from pyspark.sql import SparkSession

from batch.attempts import Attempts, Way
from batch.claims import Claims
from batch.ending import Stop, cancelling
from batch.executors import Executors, has_driver
from batch.idle import Idleness
from batch.microbatch import MicroBatches
from batch.needs import require_runnable
from batch.observe import Watch
from batch.options import Options
from batch.pauses import Pauses
from batch.planned import PlannedBatches
from batch.producer import ConfirmedProducer
from batch.publish.targets import publishing
from batch.report import Report, reported
from batch.session import spark_session
from batch.sink import BatchSink, Commit
from batch.source import starting_offsets
from batch.stage import StageTask
from batch.streaming import StreamingQueries
from batch.timeouts import Timeouts
from dlq.s3.uploader import open_uploader
from tidegate.clock import Clock, SystemClock
from tidegate.config.kafka import confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import LakeSink
from tidegate.config.topics import late_topic, letters_topic, retry_topics
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.plan import Plan, compile_plan
from tidegate.store import open_store
from tidegate.store.base import Store
from tidegate.store.reading import TopicReader
from tidegate.topics import FOREVER_KEPT, TopicSpec, ensure_topics, reached_partitions, topic_ids

_FLUSH = 3.0  # seconds for dead letters that are gathered for S3 when a run fails; they stay in their topic
OpenSession = Callable[[str, Path, str | None], AbstractContextManager[SparkSession]]
"""Name, directory for what Spark puts on the disk, master."""


class BatchRun:
    """One run. `stop`: set it, and the run ends after the micro-batch in hand, or without it when that takes too long."""

    def __init__(
        self,
        pipeline: Pipeline,
        options: Options,
        watch: Watch,
        *,
        open_session: OpenSession = spark_session,
        clock: Clock | None = None,
        owner: str | None = None,
        stop: Stop | None = None,
    ) -> None:
        """`owner`: whose name the claims are under; None: this run's own.

        Raises ConfigError for a pipeline that this engine cannot run.
        """
        self._sink = require_runnable(pipeline)
        assert pipeline.source is not None
        self._source = pipeline.source
        self._plan: Plan = compile_plan(pipeline)
        self._pipeline, self._options, self._watch = pipeline, options, watch
        self._open_session, self._clock = open_session, clock or SystemClock()
        self._owner = owner or f"spark:{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.stop = stop or Stop()
        self.report = Report(pipeline.pipeline_id)

    def run(self) -> Report:
        """1. topics and tables are there  2. the partitions are claimed  3. sinks and Spark start  4. micro-batches, to the end.

        Raises what ended it: ConfigError, StoreFenced, FloodGuardTripped, OffsetOutOfRange, EngineFailed, …; `report`
        says what was committed until then.
        """
        store = open_store(self._plan, self._sink)
        with (
            reported(self.report, store, self._clock, self.stop),
            TopicReader(self._pipeline.kafka, f"{self._pipeline.pipeline_id}-batch") as reader,
        ):
            self._run(store, reader)
        return self.report

    def _run(self, store: Store, reader: TopicReader) -> None:
        self._watch.starting("topics and tables")
        sources, counts = self._ensure_topics()
        guard = Guard("store", self._pipeline.error_handling)
        guard.call(store.prepare)
        ids = asyncio.run(topic_ids(confluent_options(self._pipeline.kafka), self._source.topics))
        guard.call(store.expect, sources, ids)
        claims = self._claimed(store, guard, sources, ids, reader)
        producer = ConfirmedProducer(confluent_options(self._pipeline.kafka))
        sink = BatchSink(self._plan, claims, producer, Guard("kafka", self._pipeline.error_handling))
        uploader = open_uploader(self._pipeline)
        idleness = self._idleness(claims, reader)
        self._watch.starting("Spark")
        publishers = publishing(self._plan, self._sink, guard, claims, self._published)
        with publishers as publisher, self._scratch() as scratch, self._session(scratch) as session:
            plan, timeouts = _for_executors(self._plan), Timeouts(self._plan, store, guard, claims, self._timed_out)
            pauses = Pauses(idleness, publisher, timeouts, self._clock)
            executors = Executors(session, StageTask(plan, [], {}, {}).warm_up)
            batches = MicroBatches(
                plan, executors, sink, claims, counts, reader, self.stop, self._committed, publisher, timeouts, pauses
            )
            way = self._way(session, scratch, claims, batches, reader)
            attempts = Attempts(self._pipeline, way, claims, batches, pauses, reader, self.stop, self._watch.waiting)
            warming = threading.Thread(target=executors.warm_up, name="warm-up")
            warming.start()
            if uploader is not None:
                uploader.start()
            try:
                with cancelling(self.stop, self._pipeline.worker.drain_timeout / 1000, executors.cancel):
                    attempts.until_done()
                if uploader is not None:
                    self._watch.starting("the last dead letters to S3")
                    uploader.finish()
            finally:
                batches.close()
                claims.close()
                self.report.states = claims.states
                warming.join()  # before the session that it uses is stopped
                if uploader is not None:
                    uploader.stop(_FLUSH)

    def _way(
        self, session: SparkSession, scratch: Path, claims: Claims, batches: MicroBatches, reader: TopicReader
    ) -> Way:
        """Spark plans micro-batches where its driver is here."""
        if has_driver(session):
            return StreamingQueries(self._pipeline, self._options, session, scratch, claims, batches, reader, self.stop)
        return PlannedBatches(self._pipeline, self._options, claims, batches, reader, self.stop, self._clock)

    def _committed(self, commit: Commit, lag: int | None) -> None:
        self.report.add(commit)
        self._watch.committed(self.report, commit, lag)

    def _published(self, sink: str, results: Mapping[str, int]) -> None:
        self.report.add_published(sink, results)
        self._watch.published(sink, results)

    def _timed_out(self, windows: Mapping[str, int]) -> None:
        self.report.add_timed_out(windows)
        self._watch.timed_out(windows)

    def _claimed(
        self, store: Store, guard: Guard, sources: list[TopicPartition], ids: Mapping[str, str], reader: TopicReader
    ) -> Claims:
        """All partitions. In a pipeline that nobody has run before they begin where it says; those that a topic has got
        since begin with their first record, or what was written to them meanwhile would be lost.

        Raises OffsetOutOfRange, TopicRecreated: a log that has lost records is said before Spark starts.
        """
        claims = Claims(self._plan, store, guard, self._owner, ids)
        new = claims.claim(sources)
        if self._source.start_at == "latest" and len(new) == len(sources):
            for tp in new:
                low, high = reader.bounds(tp)
                if high > low:
                    claims.begin_after(tp, high - 1)
        starting_offsets(self._source, claims.states, reader)
        return claims

    def _idleness(self, claims: Claims, reader: TopicReader) -> Idleness | None:
        """Only a run that goes on can say that a partition is quiet."""
        event_time = self._pipeline.event_time
        if event_time is None or event_time.idle_timeout is None or self._options.trigger.interval is None:
            return None
        return Idleness(claims, reader, event_time.idle_timeout / 1000, self._clock)

    def _ensure_topics(self) -> tuple[list[TopicPartition], dict[str, int]]:
        """The source partitions, and the partitions of the topics for dead letters and late records, made if missing."""
        options = confluent_options(self._pipeline.kafka)
        found = asyncio.run(reached_partitions(self._pipeline.kafka, self._source.topics))
        sources = [TopicPartition(topic, number) for topic, count in found.items() for number in range(count)]
        names = (letters_topic(self._pipeline), late_topic(self._pipeline), *retry_topics(self._pipeline))
        specs = [TopicSpec(name, max(found.values()), FOREVER_KEPT) for name in names if name is not None]
        return sources, asyncio.run(ensure_topics(options, specs)) if specs else {}

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A directory of this run's own, deleted at its end."""
        if self._options.checkpoint is not None:
            self._options.checkpoint.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f"tidegate-{self._pipeline.pipeline_id}-", dir=self._options.checkpoint, ignore_cleanup_errors=True
        ) as name:
            yield Path(name)

    @contextmanager
    def _session(self, scratch: Path) -> Iterator[SparkSession]:
        with self._open_session(self._pipeline.pipeline_id, scratch, self._options.master) as session:
            if self._pipeline.telemetry.log_level == "debug" and has_driver(session):
                session.sparkContext.setLogLevel("WARN")
            yield session


def _for_executors(plan: Plan) -> Plan:
    """The plan without the passwords of S3, to which executors write nothing."""
    handling = plan.pipeline.error_handling
    bare = {"aws_access_key_id": None, "aws_secret_access_key": None, "aws_session_token": None}
    config = handling.dead_letter_queue.config.model_copy(update=bare)
    queue = handling.dead_letter_queue.model_copy(update={"config": config})
    sinks = tuple(sink for sink in plan.pipeline.sinks if not isinstance(sink, LakeSink))
    update = {"error_handling": handling.model_copy(update={"dead_letter_queue": queue}), "sinks": sinks}
    return replace(plan, pipeline=plan.pipeline.model_copy(update=update))
