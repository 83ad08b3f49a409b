"""The function of `foreachBatch`: one micro-batch through the executors and into the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
from pyspark.sql import DataFrame

from batch import wire
from batch.claims import Claims
from batch.failure import SPARK_ERRORS, engine_failed
from batch.session import silent_about_pandas
from batch.sink import BatchSink, Commit, Refusals
from batch.source import remaining
from batch.stage import StageTask
from tidegate.errors import BrokerUnavailable
from tidegate.record import TopicPartition
from tidegate.stages.plan import Plan
from tidegate.store.progress import source_topics
from tidegate.store.reading import TopicReader


class Stopped(Exception):
    """The run was asked to stop: this micro-batch is not begun."""


class MicroBatches:
    """Called in a thread of py4j's. `error`: what ended the last query, as it was; Spark would bury it in Java."""

    def __init__(
        self,
        plan: Plan,
        sink: BatchSink,
        claims: Claims,
        counts: Mapping[str, int],
        reader: TopicReader,
        stop: threading.Event,
        committed: Callable[[Commit, int | None], None],
    ) -> None:
        """`committed` is told of each micro-batch, and how many offsets are left (None: not known)."""
        self._plan, self._sink, self._claims, self._counts = plan, sink, claims, counts
        self._reader, self._stop, self._committed = reader, stop, committed
        self._busy = threading.Lock()
        self.error: BaseException | None = None
        self.failed = False
        logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it would log the errors that are raised here as well

    def begin(self) -> None:
        """A new query."""
        self.error, self.failed = None, False

    def settle(self) -> None:
        """Wait for the micro-batch in hand. No other begins once `stop` is set."""
        with self._busy:
            pass

    @contextmanager
    def quiet(self) -> Iterator[bool]:
        """Whether no micro-batch is in hand; none begins meanwhile."""
        quiet = self._busy.acquire(blocking=False)
        try:
            yield quiet
        finally:
            if quiet:
                self._busy.release()

    def __call__(self, frame: DataFrame, batch_id: int) -> None:
        """`batch_id` is Spark's and means nothing: the states say what is new."""
        with self._busy:
            try:
                if self._stop.is_set():
                    raise Stopped
                # Partitions that the topics have got meanwhile; Spark may have read them already.
                self._claims.claim(self._sources())
                commit = self._sink.commit(lambda refusals: self._compute(frame, refusals))
                self._committed(commit, self._left())
            except BaseException as error:
                self.failed = True
                self.error = None if isinstance(error, Stopped) else error
                raise

    def _compute(self, frame: DataFrame, refusals: Refusals) -> pa.Table:
        task = StageTask(self._plan, dict(self._claims.states), self._counts, refusals)
        try:
            return _mapped(frame, task).toArrow()
        except SPARK_ERRORS as error:
            raise engine_failed("a micro-batch", error) from None

    def _left(self) -> int | None:
        """A broker that does not answer is no reason to forget that the micro-batch is in the store."""
        try:
            return remaining(self._claims.states, self._reader)
        except BrokerUnavailable:
            return None

    def _sources(self) -> list[TopicPartition]:
        topics = source_topics(self._plan.pipeline)
        return [TopicPartition(topic, number) for topic in topics for number in self._reader.partitions(topic)]


def _mapped(frame: DataFrame, task: StageTask) -> DataFrame:
    with silent_about_pandas():
        return frame.mapInArrow(task, wire.SPARK_SCHEMA)
