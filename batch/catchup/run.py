"""A catch-up from start to end. Killed anywhere, it changes nothing that is not whole, and the workers go on by themselves.

1. Spark     is started first: until it is there, workers that are alive go on
2. hold      nobody but this catch-up may claim partitions (tidegate/store/holds.py); it is renewed from now on, and expires
             by itself when this process is gone. Workers that are fenced wait, and keep their membership
3. drain     batch runs to the ends of the topics, from where the store is, until what is left is little (batch/sink.py:
             dead letters first, then results and partition rows in one transaction)
4. hand back the group's offsets are written if the group is empty, and the hold is let go of. A worker takes over what the
             store has (worker/reload.py) and goes on behind it
"""

from __future__ import annotations

import os
import socket
import tempfile
import uuid
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pyspark.sql import SparkSession

from batch.catchup.hold import held
from batch.catchup.needs import for_spark
from batch.catchup.offsets import write_group_offsets
from batch.ending import Stop
from batch.needs import require_runnable
from batch.observe import Watch
from batch.options import Options
from batch.report import Report, reported
from batch.run import BatchRun, OpenSession
from batch.session import spark_session
from batch.source import lags
from tidegate.clock import Clock, SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import BrokerUnavailable, StoreHeld
from tidegate.resilience.guard import Guard
from tidegate.stages.plan import compile_plan
from tidegate.store import open_store
from tidegate.store.base import Store
from tidegate.store.reading import TopicReader


class CatchupWatch(Watch, Protocol):
    """Who is told how it goes."""

    def held_by_another(self, error: StoreHeld) -> None: ...

    def holding(self) -> None:
        """The pipeline is held; workers wait."""

    def handed_back(self, lag: int | None) -> None: ...


@dataclass(slots=True)
class CatchupReport:
    """`rounds`: the runs to the ends of the topics. `held`: seconds that workers could not go on for. `lag`: offsets that
    were left at the end (None: not known)."""

    pipeline: str
    rounds: list[Report] = field(default_factory=list)
    seconds: float = 0.0
    held: float = 0.0
    lag: int | None = None
    group_offsets_written: bool = False
    error: str | None = None
    stopped: bool = False

    @property
    def total(self) -> Report:
        """All rounds as one."""
        total = Report(self.pipeline, seconds=self.held, error=self.error, stopped=self.stopped)
        for one in self.rounds:
            total.batches += one.batches
            total.dead_letters += one.dead_letters
            total.states = one.states or total.states
            total.add_timed_out(one.timed_out)
            for tp, ledger in one.ledgers.items():
                total.ledgers[tp] = total.ledgers[tp] + ledger if tp in total.ledgers else ledger
        return total

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            **self.total.document(),
            "seconds": round(self.seconds, 3),
            "heldSeconds": round(self.held, 3),
            "rounds": len(self.rounds),
            "lag": self.lag,
            "groupOffsetsWritten": self.group_offsets_written,
        }


class Catchup:
    """One catch-up. `stop`: set it, and the pipeline is handed back after the micro-batch in hand."""

    def __init__(
        self,
        pipeline: Pipeline,
        options: Options,
        max_lag: int,
        watch: CatchupWatch,
        *,
        open_session: OpenSession = spark_session,
        clock: Clock | None = None,
        stop: Stop | None = None,
    ) -> None:
        """`max_lag`: offsets that may be left for the workers. Raises ConfigError for a pipeline that does not fit."""
        self._pipeline, self._spark_pipeline = pipeline, for_spark(pipeline)
        self._options, self._max_lag, self._watch = options, max_lag, watch
        self._open_session, self._clock = open_session, clock or SystemClock()
        self._holder = f"catchup:{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.stop = stop or Stop()
        self.report = CatchupReport(pipeline.pipeline_id)

    def run(self) -> CatchupReport:
        """Raises what ended it (BatchRun.run), StoreHeld when another catch-up is at work; `report` has what was done."""
        store = open_store(compile_plan(self._spark_pipeline), require_runnable(self._spark_pipeline))
        with (
            reported(self.report, store, self._clock, self.stop),
            tempfile.TemporaryDirectory(prefix="tidegate-catchup-", ignore_cleanup_errors=True) as scratch,
        ):
            self._watch.starting("Spark")
            with self._open_session(self._pipeline.pipeline_id, Path(scratch), self._options.master) as session:
                self._hold_and_drain(store, session)
        return self.report

    def _hold_and_drain(self, store: Store, session: SparkSession) -> None:
        guard = Guard("store", self._pipeline.error_handling)
        guard.call(store.prepare)
        duration, waiting = self._pipeline.fallback.hold, self._watch.held_by_another
        with held(store, guard, self._holder, duration, self.stop, waiting):
            begun = self._clock.monotonic()
            self._watch.holding()
            try:
                self._drain(session)
                self._hand_back()
            finally:
                self.report.held = self._clock.monotonic() - begun
        self._watch.handed_back(self.report.lag)

    def _drain(self, session: SparkSession) -> None:
        """Round after round, each to the ends as they are at its beginning, until little is left or nothing came."""
        with TopicReader(self._pipeline.kafka, f"{self._pipeline.pipeline_id}-catchup") as reader:
            while not self.stop.is_set():
                run = self._round(session)
                self.report.rounds.append(run.report)
                run.run()
                self.report.lag = lag = _remaining(run.report, reader)
                nothing_came = run.report.total.read == 0  # what is left may be markers of transactions
                if nothing_came or (lag is not None and lag <= self._max_lag):
                    return

    def _round(self, session: SparkSession) -> BatchRun:
        return BatchRun(
            self._spark_pipeline,
            self._options,
            self._watch,
            open_session=lambda name, scratch, master: nullcontext(session),
            owner=self._holder,
            stop=self.stop,
        )

    def _hand_back(self) -> None:
        states = self.report.total.states
        self.report.group_offsets_written = write_group_offsets(
            self._pipeline.kafka, self._pipeline.pipeline_id, {tp: state.upto for tp, state in states.items()}
        )


def _remaining(report: Report, reader: TopicReader) -> int | None:
    try:
        return sum(lags(report.states, reader).values())
    except BrokerUnavailable:
        return None
