"""Spark's queries, one after the other until the run is done.

The store's partition rows are the only state. Spark's checkpoint is scratch: every query begins a fresh one, from where the
store is. So it can be deleted, be behind or be ahead, and after an outage the query is simply begun anew.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from batch.claims import Claims
from batch.failure import SPARK_ERRORS, engine_failed
from batch.microbatch import MicroBatches
from batch.options import Options
from batch.pauses import Pauses
from batch.source import even_limit, lags, planned_stream, starting_offsets
from tidegate.config.pipeline import Pipeline
from tidegate.errors import CircuitOpen, DependencyError, EngineFailed
from tidegate.record import TopicPartition
from tidegate.store.reading import TopicReader

log = structlog.get_logger(__name__)
_POLL = 0.25  # seconds between looks at the query
_OUTAGE_WAIT = (0.5, 10.0)  # seconds: first and longest wait when no breaker says how long


@dataclass(slots=True)
class Queries:
    """`scratch`: a directory for the checkpoints. `waiting` is told of an outage, and for how many seconds it is waited."""

    pipeline: Pipeline
    options: Options
    session: SparkSession
    scratch: Path
    claims: Claims
    batches: MicroBatches
    pauses: Pauses
    reader: TopicReader
    stop: threading.Event
    waiting: Callable[[DependencyError, float], None]

    def until_done(self) -> None:
        """An outage ends a query, and the next begins where the store is. Raises what is no outage."""
        wait = _OUTAGE_WAIT[0]
        while not self.stop.is_set():
            before = self.claims.states
            try:
                self._query()
                return
            except DependencyError as error:
                wait = wait if self.claims.states == before else _OUTAGE_WAIT[0]
                pause = error.retry_after_ms / 1000 if isinstance(error, CircuitOpen) else wait
                log.warning("batch.waiting", seconds=round(pause, 3), error=str(error))
                self.waiting(error, pause)
                self.stop.wait(pause)
                wait = min(wait * 2, _OUTAGE_WAIT[1])

    def _query(self) -> None:
        """One query, from the store's offsets to its end or the run's."""
        if self.batches.failed:  # the outcome of the last write may be unknown
            self.claims.renew()
        self.pauses.catch_up()
        starts = self._starts()
        checkpoint = Path(tempfile.mkdtemp(dir=self.scratch, prefix="checkpoint-"))
        self.batches.begin(checkpoint, starts)
        query = self._start(starts, checkpoint)
        try:
            while not query.awaitTermination(_POLL):  # type: ignore[arg-type]  # its stub wants whole seconds; it takes any
                if self.stop.is_set():
                    self.batches.settle()
                    return
                with self.batches.quiet() as quiet:
                    if quiet:
                        self.pauses.look(query.lastProgress)
        except SPARK_ERRORS as error:
            if self.stop.is_set() and self.batches.error is None:
                return
            reason = self.batches.error or engine_failed("the query", error)
            if isinstance(reason, EngineFailed):
                self._starts()  # raises if it was the broker, or the log
            raise reason from None
        finally:
            with suppress(*SPARK_ERRORS):  # a JVM that has gone has no queries; what ended this one is being raised
                if query.isActive:
                    query.stop()

    def _starts(self) -> dict[TopicPartition, int]:
        assert self.pipeline.source is not None
        return starting_offsets(self.pipeline.source, self.claims.states, self.reader)

    def _limit(self) -> int | None:
        """Offsets of a micro-batch; None: no limit. Of a run that goes on it is not known how many there will be."""
        most = self.options.limit
        if most is None or self.options.trigger.interval is not None:
            return most
        left = lags(self.claims.states, self.reader)
        return even_limit(sum(left.values()), most, len(left))

    def _start(self, starts: dict[TopicPartition, int], checkpoint: Path) -> StreamingQuery:
        stream = planned_stream(self.session, self.pipeline, starts, self._limit())
        return (
            stream.writeStream.foreachBatch(self.batches)
            .trigger(**self.options.trigger.spark)  # type: ignore[arg-type]  # the one keyword that the trigger has
            .option("checkpointLocation", str(checkpoint))
            .queryName(self.pipeline.pipeline_id)
            .start()
        )
