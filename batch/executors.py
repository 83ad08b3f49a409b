"""Tasks for the executors, whether Spark's driver is in this process or behind Spark Connect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pyarrow as pa
from pyspark.sql import SparkSession

from batch import wire
from batch.failure import SPARK_ERRORS
from batch.quiet import silent_about_pandas

OfTasks = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
_ENOUGH = 1 << 16  # numbers, of which each task that can run gets some


def has_driver(session: SparkSession) -> bool:
    """Whether Spark's driver is here, with its context and its queries. With Spark Connect it is a server elsewhere."""
    return isinstance(session, SparkSession)


class Executors:
    """What a session's executors are asked to do. `begin` makes what their tasks will use, and gives a row for each task."""

    def __init__(self, session: SparkSession, begin: OfTasks) -> None:
        self._session, self._begin = session, begin
        self._asking, self._asked = threading.Lock(), 0
        self.cancelled = False

    def run(self, function: OfTasks, count: int) -> pa.Table:
        """So many tasks; each is given its number. Raises SPARK_ERRORS."""
        return self._run(function, count, count)

    def warm_up(self) -> None:
        """Start the executors' Python, with all that they import, while the first micro-batch is planned: 2 to 3 of the 18 s
        of a short run. What goes wrong here goes wrong again in the first task, and is said there."""
        with suppress(*SPARK_ERRORS):
            if has_driver(self._session):
                self.run(self._begin, self.at_once())
            else:
                self.at_once()

    def cancel(self) -> None:
        """End what they are doing: whoever waits for it gets one of SPARK_ERRORS. A handler that never comes back is killed."""
        self.cancelled = True
        with suppress(*SPARK_ERRORS):
            if has_driver(self._session):
                self._session.sparkContext.cancelAllJobs()
            else:
                self._session.interruptAll()

    def at_once(self) -> int:
        """How many tasks can run at a time. A server does not say; what it cuts a range into does. It is asked once, by the
        warm-up if that comes first. Raises SPARK_ERRORS."""
        if has_driver(self._session):
            return int(self._session.sparkContext.defaultParallelism)
        with self._asking:
            self._asked = self._asked or self._run(self._begin, _ENOUGH, None).num_rows
            return self._asked

    def _run(self, function: OfTasks, numbers: int, tasks: int | None) -> pa.Table:
        with silent_about_pandas():
            frame = self._session.range(0, numbers, 1, tasks).mapInArrow(function, wire.SPARK_SCHEMA)
        return frame.toArrow()
