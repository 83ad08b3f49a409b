"""The same windowed job in several engines, each in a process of its own that runs jobs one after the other.

ours     `tidegate batch run`'s own run
native   Spark's `withWatermark` + `window`, RocksDB for the state, upsert to PostgreSQL
read     Spark reads the topic and does nothing with it
limit    confluent-kafka and DuckDB, no Spark
steps    no engine: a step for jobs that have one

A process gets one Work as JSON on its standard input and prints a Done per job, as JSON, a line each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

ENGINES = ("ours", "native", "read", "limit")
ROOT = Path(__file__).parents[2]
FETCH = {  # larger than the Java client's own: a read of small records takes 2.2 s instead of 4
    "kafka.max.poll.records": "20000",
    "kafka.max.partition.fetch.bytes": "8388608",
    "kafka.fetch.max.bytes": "33554432",
}
JAVA = ""
"""Java's own choice of compilers and collector, for engines whose records pass through the JVM."""
MICRO_BATCH = 500_000
"""Records of a micro-batch, unless a job says otherwise; what `tidegate batch run` has by default."""
_TIMEOUT = 400.0  # seconds for one process


@dataclass(frozen=True, slots=True)
class Work:
    """What one process does. `jobs`: each with `topic`, `records` and, where the engine needs it, `table` (native),
    `pipeline` (ours: the document), `answer` (limit: a file to write) or `max_records` (of a micro-batch; null: no limit).
    """

    servers: str
    postgres: str
    jobs: list[dict[str, Any]]
    master: str = "local[2]"


@dataclass(frozen=True, slots=True)
class Done:
    """One job. `seconds`: from its beginning to its end, Spark's start not counted; `session`: that start.

    `batches`: seconds of each micro-batch. `cpu`: processor seconds of the process, its JVM and its executors.
    """

    records: int
    seconds: float
    session: float
    cpu: float
    batches: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.records / self.seconds


def perform(engine: str, work: Work) -> list[Done]:
    """Run a process of this engine to its end. Raises RuntimeError with what it said on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.engines.{engine}"],
        input=json.dumps(asdict(work)),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise RuntimeError(f"{engine} ended with code {done.returncode}:\n{done.stderr[-4000:]}")
    return [Done(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]


# In the process.


def given() -> Work:
    return Work(**json.load(sys.stdin))


class Stopwatch:
    """Wall clock and processor seconds since it was made or last read."""

    def __init__(self) -> None:
        self._at, self._cpu = time.monotonic(), _cpu()

    def read(self) -> tuple[float, float]:
        at, cpu = time.monotonic(), _cpu()
        passed = at - self._at, cpu - self._cpu
        self._at, self._cpu = at, cpu
        return passed


def tell(done: Done) -> None:
    print(json.dumps(asdict(done)), flush=True)


@contextmanager
def session(work: Work, *, java_options: str | None = None) -> Iterator[tuple[Any, float]]:
    """The session that `tidegate batch run` would start, and how long that took. `java_options`: other than its own."""
    import tempfile

    began = time.monotonic()
    from batch import session as ours

    if java_options is not None:
        ours.JAVA_OPTIONS = java_options
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch,
        ours.spark_session("benchmark", Path(scratch), work.master) as spark,
    ):
        yield spark, time.monotonic() - began


def _cpu() -> float:
    """Of this process and all below it."""
    total = 0.0
    mine = psutil.Process()
    for process in (mine, *mine.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + (times.children_user + times.children_system if process == mine else 0.0)
    return total
