"""Micro-batches by a query of Spark's own: it says when there is one, and where it ends.

Spark's checkpoint is scratch: every query begins a fresh one, from where the store is. So it can be deleted, be behind or be
ahead; it is, by the micro-batch that is being computed while Spark plans the next (ahead.py).
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from batch.ahead import Ahead
from batch.claims import Claims
from batch.failure import SPARK_ERRORS, engine_failed
from batch.microbatch import MicroBatches, Stopped
from batch.options import Options
from batch.source import even_limit, lags, planned_ends, planned_stream
from tidegate.config.pipeline import Pipeline
from tidegate.record import TopicPartition
from tidegate.store.reading import TopicReader

_POLL = 0.25  # seconds between looks at the query


@dataclass(slots=True)
class StreamingQueries:
    """One after the other. `scratch`: a directory for the checkpoints."""

    pipeline: Pipeline
    options: Options
    session: SparkSession
    scratch: Path
    claims: Claims
    batches: MicroBatches
    reader: TopicReader
    stop: threading.Event

    def __post_init__(self) -> None:
        logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it would log what a micro-batch raises as well

    def follow(self, starts: Mapping[TopicPartition, int]) -> None:
        """One query, from these offsets to its end or the run's. Raises what ended it."""
        with Ahead(self.batches.take) as ahead:
            self._follow(self._start(starts, ahead), ahead)

    def _follow(self, query: StreamingQuery, ahead: Ahead) -> None:
        try:
            while not query.awaitTermination(_POLL):  # type: ignore[arg-type]  # its stub wants whole seconds; it takes any
                ahead.look()
                if self.stop.is_set():
                    self.batches.settle()
                    return
                self.batches.between()
            ahead.wait()
        except Stopped:
            pass
        except SPARK_ERRORS as error:
            if self.stop.is_set() and self.batches.error is None:
                return
            raise (self.batches.error or engine_failed("the query", error)) from None
        finally:
            with suppress(*SPARK_ERRORS):  # a JVM that has gone has no queries; what ended this one is being raised
                if query.isActive:
                    query.stop()

    def _limit(self) -> int | None:
        """Offsets of a micro-batch; None: no limit. Of a run that goes on it is not known how many there will be."""
        most = self.options.limit
        if most is None or self.options.trigger.interval is not None:
            return most
        left = lags(self.claims.states, self.reader)
        return even_limit(sum(left.values()), most, len(left))

    def _start(self, starts: Mapping[TopicPartition, int], ahead: Ahead) -> StreamingQuery:
        checkpoint = Path(tempfile.mkdtemp(dir=self.scratch, prefix="checkpoint-"))

        def take(frame: DataFrame, batch_id: int) -> None:
            """In a thread of py4j's. The frame is not evaluated: executors read the records themselves."""
            ahead.give(planned_ends(checkpoint, batch_id))

        stream = planned_stream(self.session, self.pipeline, starts, self._limit())
        return (
            stream.writeStream.foreachBatch(take)
            .trigger(**self.options.trigger.spark)  # type: ignore[arg-type]  # the one keyword that the trigger has
            .option("checkpointLocation", str(checkpoint))
            .queryName(self.pipeline.pipeline_id)
            .start()
        )
