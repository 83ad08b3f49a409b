"""Micro-batches through the executors and into the store.

While one is being committed (batch/sink.py), the next is computed on the states that the commit will make of the partitions:
the executors have the processors, or the database has them. It waits with its own commit until the other is through. Was that
refused something, so that the states are others, it is computed again; did it fail, the computed one is forgotten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from batch import wire
from batch.claims import Claims
from batch.executors import Executors
from batch.failure import SPARK_ERRORS, engine_failed
from batch.fetch import BEGINNING, Stretch
from batch.pauses import Pauses
from batch.publish.publisher import Publisher
from batch.sink import BatchSink, Commit, Compute, Refusals
from batch.source import lags, source_partitions
from batch.stage import StageTask
from batch.timeouts import Timeouts
from tidegate.errors import BrokerUnavailable
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import Plan
from tidegate.store.reading import TopicReader


class Stopped(Exception):
    """The run was asked to stop, or the attempt has failed: this micro-batch is not begun, or is given up."""


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


class MicroBatches:
    """Those of one run. `error`: what ended the last attempt, as it was; Spark would bury it in Java."""

    def __init__(
        self,
        plan: Plan,
        executors: Executors,
        sink: BatchSink,
        claims: Claims,
        counts: Mapping[str, int],
        reader: TopicReader,
        stop: threading.Event,
        committed: Callable[[Commit, int | None], None],
        publisher: Publisher | None,
        timeouts: Timeouts,
        pauses: Pauses,
    ) -> None:
        """`committed` is told of each micro-batch, and how many offsets are left (None: not known). `publisher`: None where there
        is no sink but the store."""
        self._plan, self._executors, self._sink = plan, executors, sink
        self._claims, self._counts = claims, counts
        self._reader, self._stop, self._committed = reader, stop, committed
        self._publisher, self._timeouts, self._pauses = publisher, timeouts, pauses
        self._busy = threading.Lock()
        self._ahead: Mapping[TopicPartition, PartitionState] = {}  # what the commit under way makes of partitions
        self._commit: Future[None] | None = None
        self._committing = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._reached: dict[TopicPartition, int] = {}
        self.error: BaseException | None = None
        self.failed = False

    @property
    def reached(self) -> Mapping[TopicPartition, int]:
        """The offsets before which everything was read, which a state does not know where a log ends with markers of
        transactions."""
        return self._reached

    def begin(self, starts: Mapping[TopicPartition, int]) -> None:
        """A new attempt, from these offsets on."""
        self.error, self.failed = None, False
        self._reached = dict(starts)

    def settle(self) -> None:
        """Wait until the micro-batch in hand is in the store. No other begins once `stop` is set. Raises what has ended it."""
        with self._busy:
            self._landed()

    def close(self) -> None:
        """Nothing is in hand any more."""
        self._committing.shutdown()

    def between(self) -> None:
        """If none is in hand, what there is to do in a pause (pauses.py). Raises what has ended the last one."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            if self._commit is not None and not self._commit.done():
                return
            self._landed()
            self._pauses.look(self._reached)
        finally:
            self._busy.release()

    def take(self, ends: Mapping[TopicPartition, int]) -> None:
        """One micro-batch, up to before these offsets; where it begins, the states say. When this returns it is computed and
        being committed; what comes of that is said by the next call, of whatever method.

        Raises Stopped, what BatchSink.commit raises, and EngineFailed.
        """
        with self._busy:
            try:
                # A query that has not been stopped yet may offer what comes after a commit that has failed, and been said to
                # have: its records count as read, and would be passed over.
                if self._stop.is_set() or self.failed:
                    raise Stopped
                self._take(ends, time.monotonic())
            except BaseException as error:
                self.failed = True
                if not isinstance(error, Stopped):
                    self.error = error
                try:
                    self._landed()
                except BaseException as earlier:
                    self.error = earlier
                    raise
                raise

    def _take(self, ends: Mapping[TopicPartition, int], began: float) -> None:
        """1. compute, while the one before is being committed  2. wait for that  3. begin to commit this one."""
        # Partitions that the topics have got meanwhile; whoever planned the ends may know them already.
        sources = source_partitions(self._plan.pipeline, self._reader)
        if self._plan.pipeline.dedupe is not None or not self._claims.states.keys() >= set(sources):
            self._landed()  # executors ask the store which keys were seen; a claim is no matter for two threads
        self._claims.claim(sources)
        states = {**self._claims.states, **self._ahead}
        stretches = self._stretches(ends, states)
        outcomes = self._compute(stretches, states, {})
        self._landed()
        if self._claims.states != states:
            states = dict(self._claims.states)
            outcomes = self._compute(stretches, states, {})

        def again(refusals: Refusals) -> list[wire.Outcome]:
            return self._compute(stretches, states, refusals)

        self._reached |= ends
        self._ahead = {outcome.tp: outcome.applied.state for outcome in outcomes}
        self._commit = self._committing.submit(self._land, outcomes, again, began)

    def _landed(self) -> None:
        """Wait for the commit that is under way. Raises what has ended it."""
        commit, self._commit, self._ahead = self._commit, None, {}
        if commit is not None:
            commit.result()

    def _land(self, outcomes: Sequence[wire.Outcome], again: Compute, began: float) -> None:
        """In a thread of its own: into the store, and on to the sinks."""
        try:
            commit = self._sink.commit(outcomes, again)
            try:
                if self._publisher is not None:
                    self._publisher.follow(commit.touched)
                self._timeouts.look()  # after all sinks have had what goes
            finally:  # it is in the store, whoever else has not heard of it
                left = self._left()
                whole = replace(commit, lags=left, seconds=time.monotonic() - began)
                self._committed(whole, None if left is None else sum(left.values()))
        except BaseException as error:
            self.failed, self.error = True, error
            raise

    def _stretches(
        self, ends: Mapping[TopicPartition, int], states: Mapping[TopicPartition, PartitionState]
    ) -> list[Stretch]:
        """What is new. After what was reached, so that a long stretch of aborted records is looked at once."""
        found = []
        for tp, state in states.items():
            start = max(state.upto + 1 if state.upto >= 0 else BEGINNING, self._reached.get(tp, BEGINNING))
            if max(start, 0) < ends.get(tp, 0):
                found.append(Stretch(tp, start, ends[tp]))
        return found

    def _compute(
        self, stretches: Sequence[Stretch], states: Mapping[TopicPartition, PartitionState], refusals: Refusals
    ) -> list[wire.Outcome]:
        """As many tasks as can run at once: each costs some 75 ms, whatever it does."""
        if not stretches:
            return []
        try:
            shares = shared_out(stretches, self._executors.at_once())
            task = StageTask(self._plan, shares, states, self._counts, refusals)
            return wire.receive(self._executors.run(task, len(shares)))
        except SPARK_ERRORS as error:
            if self._executors.cancelled:
                raise Stopped from None
            raise engine_failed("a micro-batch", error) from None

    def _left(self) -> dict[TopicPartition, int] | None:
        """A broker that does not answer is no reason to forget that the micro-batch is in the store."""
        try:
            return lags(self._claims.states, self._reader)
        except BrokerUnavailable:
            return None
