"""The function of `foreachBatch`: one micro-batch through the executors and into the store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from batch import wire
from batch.claims import Claims
from batch.failure import SPARK_ERRORS, engine_failed
from batch.fetch import BEGINNING, Stretch
from batch.publish.publisher import Publisher
from batch.session import silent_about_pandas
from batch.sink import BatchSink, Commit, Refusals
from batch.source import lags, planned_ends
from batch.stage import StageTask
from batch.timeouts import Timeouts
from tidegate.errors import BrokerUnavailable
from tidegate.record import TopicPartition
from tidegate.stages.plan import Plan
from tidegate.store.progress import source_topics
from tidegate.store.reading import TopicReader

OfTasks = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


class Stopped(Exception):
    """The run was asked to stop: this micro-batch is not begun."""


def shared_out(stretches: Sequence[Stretch], tasks: int) -> list[list[Stretch]]:
    """The stretches in at most so many parts with nearly as many offsets each: the longest first, each to the part that has
    least so far (Graham's LPT rule, at most a third over the best there is)."""
    shares: list[list[Stretch]] = [[] for _ in range(min(tasks, len(stretches)))]
    sizes = [0] * len(shares)
    for stretch in sorted(stretches, key=_length, reverse=True):
        least = sizes.index(min(sizes))
        shares[least].append(stretch)
        sizes[least] += _length(stretch)
    return shares


def _length(stretch: Stretch) -> int:
    return stretch.end - max(stretch.start, 0)


def _tasks(session: SparkSession, function: OfTasks, count: int) -> DataFrame:
    """So many tasks; each is given its number."""
    with silent_about_pandas():
        return session.range(0, count, 1, count).mapInArrow(function, wire.SPARK_SCHEMA)


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
        publisher: Publisher | None,
        timeouts: Timeouts,
    ) -> None:
        """`committed` is told of each micro-batch, and how many offsets are left (None: not known). `publisher`: None where there
        is no sink but the store."""
        self._plan, self._sink, self._claims, self._counts = plan, sink, claims, counts
        self._reader, self._stop, self._committed = reader, stop, committed
        self._publisher, self._timeouts = publisher, timeouts
        self._busy = threading.Lock()
        self._checkpoint, self._reached = Path(), dict[TopicPartition, int]()
        self.error: BaseException | None = None
        self.failed = False
        logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it would log the errors that are raised here as well

    def begin(self, checkpoint: Path, starts: Mapping[TopicPartition, int]) -> None:
        """A new query, with this checkpoint, from these offsets on."""
        self.error, self.failed = None, False
        self._checkpoint, self._reached = checkpoint, dict(starts)

    def warm_up(self, session: SparkSession) -> None:
        """Start the executors' Python, with all that they import, while Spark plans the first micro-batch: 2 to 3 of the 18 s
        of a short run. What goes wrong here goes wrong again in the first task, and is said there."""
        count = session.sparkContext.defaultParallelism
        task = StageTask(self._plan, [], {}, {})
        with suppress(*SPARK_ERRORS):
            _tasks(session, task.warm_up, count).toArrow()

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
        """`frame` is not evaluated: executors read the records themselves. Where the micro-batch ends is by `batch_id` in
        Spark's account; where it begins, the states say."""
        with self._busy:
            try:
                if self._stop.is_set():
                    raise Stopped
                began = time.monotonic()
                # Partitions that the topics have got meanwhile; Spark may have read them already.
                self._claims.claim(self._sources())
                ends = planned_ends(self._checkpoint, batch_id)
                stretches = self._stretches(ends)
                commit = self._sink.commit(lambda refusals: self._compute(frame.sparkSession, stretches, refusals))
                self._reached |= ends
                try:
                    if self._publisher is not None:
                        self._publisher.follow(commit.touched)
                    self._timeouts.look()  # after all sinks have had what goes
                finally:  # it is in the store, whoever else has not heard of it
                    left = self._left()
                    seconds = time.monotonic() - began
                    whole = replace(commit, lags=left, seconds=seconds)
                    self._committed(whole, None if left is None else sum(left.values()))
            except BaseException as error:
                self.failed = True
                self.error = None if isinstance(error, Stopped) else error
                raise

    def _stretches(self, ends: Mapping[TopicPartition, int]) -> list[Stretch]:
        """What is new. After what the query has reached, so that a long stretch of aborted records is looked at once."""
        found = []
        for tp, state in self._claims.states.items():
            start = max(state.upto + 1 if state.upto >= 0 else BEGINNING, self._reached.get(tp, BEGINNING))
            if max(start, 0) < ends.get(tp, 0):
                found.append(Stretch(tp, start, ends[tp]))
        return found

    def _compute(self, session: SparkSession, stretches: Sequence[Stretch], refusals: Refusals) -> pa.Table:
        """As many tasks as can run at once: each costs some 75 ms, whatever it does."""
        if not stretches:
            return wire.NOTHING
        shares = shared_out(stretches, session.sparkContext.defaultParallelism)
        task = StageTask(self._plan, shares, dict(self._claims.states), self._counts, refusals)
        try:
            return _tasks(session, task, len(shares)).toArrow()
        except SPARK_ERRORS as error:
            raise engine_failed("a micro-batch", error) from None

    def _left(self) -> dict[TopicPartition, int] | None:
        """A broker that does not answer is no reason to forget that the micro-batch is in the store."""
        try:
            return lags(self._claims.states, self._reader)
        except BrokerUnavailable:
            return None

    def _sources(self) -> list[TopicPartition]:
        topics = source_topics(self._plan.pipeline)
        return [TopicPartition(topic, number) for topic in topics for number in self._reader.partitions(topic)]
