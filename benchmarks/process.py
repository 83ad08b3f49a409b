"""A tidegate worker as a process of its own: started, watched through its metrics, and always ended."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.progress import bar
from benchmarks.stack import Bench
from tidegate.local.process import free_ports

ROOT = Path(__file__).parent.parent
_READY = 60.0  # seconds


def job(bench: Bench, topic: str, **changes: Any) -> dict[str, Any]:
    """The windowed job: decode, two rules, lateness, one tumbling minute per user with four measures; changelog, no sink."""
    return {
        "pipelineId": f"bench-{uuid.uuid4().hex[:8]}",
        "kafka": {"bootstrapServers": bench.servers},
        "source": {"topics": [topic], "key": {"column": "user"}},
        "schema": [
            {"name": "id", "type": "bigint"},
            {"name": "user_id", "type": "string", "nullable": False},
            {"name": "amount", "type": "double"},
            {"name": "currency", "type": "string"},
            {"name": "event_time", "type": "timestamp", "unit": "ms", "nullable": False},
            {"name": "status", "type": "string"},
        ],
        "eventTime": {"column": "event_time", "delay": "10 seconds", "idleTimeout": "5 minutes"},
        "rules": [
            {"type": "range", "column": "amount", "min": 0, "max": 1000},
            {"type": "regex", "column": "currency", "pattern": "[A-Z]{3}"},
        ],
        "aggregations": [
            {
                "name": "per_user",
                "window": {"type": "tumbling", "size": "1 minute"},
                "groupBy": ["user"],
                "measures": {
                    "n": "count",
                    "total": {"type": "sum", "of": "amount"},
                    "least": {"type": "min", "of": "amount"},
                    "most": {"type": "max", "of": "amount"},
                },
            }
        ],
        **changes,
    }


@dataclass
class Worker:
    """`faust -A worker.app worker` on a pipeline. `app`: another Faust app."""

    pipeline: dict[str, Any]
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    app: str = "worker.app"
    process: subprocess.Popen[bytes] = field(init=False)
    port: int = field(init=False)

    def start(self) -> None:
        name = self.pipeline["pipelineId"]
        self.log = self.directory / f"{name}.log"
        file = self.directory / f"{name}.yaml"
        (self.port,) = free_ports(1)
        worker = {"stateDir": str(self.state), **self.pipeline.get("worker", {})}
        document = {**self.pipeline, "telemetry": {"port": self.port}, "worker": worker}
        if "deadLetters" in document:
            document["deadLetters"] = {**document["deadLetters"], "port": self.port}
        file.write_text(yaml.safe_dump(document))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TIDEGATE_PIPELINE": str(file), **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "faust", "-A", self.app, "worker", "-l", "info"],
                env=environment,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def state(self) -> Path:
        return self.directory / f"{self.pipeline['pipelineId']}-state"

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 30 s."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def page(self, path: str) -> str:
        """Body of a page of its HTTP server; empty while nobody answers or the answer is not 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return str(response.read().decode())
        except OSError:
            return ""

    def metrics(self) -> dict[str, float]:
        """Series, with its labels as Prometheus writes them → value."""
        lines = (line.rpartition(" ") for line in self.page("/metrics").splitlines() if not line.startswith("#"))
        return {series: float(value) for series, _, value in lines}

    def wait_ready(self) -> None:
        deadline = time.monotonic() + _READY
        while not self.page("/ready"):
            self.require_running()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the worker was not ready after {_READY:.0f} s:\n{self.tail()}")
            time.sleep(0.05)

    def require_running(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the worker ended with code {self.process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        told = [
            line
            for line in lines
            if "leaked" not in line and "nanobind" not in line and "skipped remainder" not in line
        ]
        return "\n".join(told[-40:])

    @property
    def cpu(self) -> float:
        """Processor seconds that the process has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def rss(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


def total(metrics: dict[str, float], name: str, **labels: str) -> float:
    """The sum of a metric's series with these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(v for s, v in metrics.items() if s.split("{")[0] == name and all(w in s for w in wanted))


@contextlib.contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the worker: when (monotonic seconds), records taken on and done, those of them that are dead letters,
    processor seconds used, bytes resident."""

    at: float
    taken: float
    done: float
    dead: float
    cpu: float
    rss: int


def watch(worker: Worker, records: int, every: float = 0.1, timeout: float = 900.0) -> list[Sample]:
    """Look until this many records are done."""
    samples: list[Sample] = []
    deadline = time.monotonic() + timeout
    with bar("the worker at work", records) as progress:
        while True:
            worker.require_running()
            samples.append(look(worker))
            done = samples[-1].done
            progress(int(done))
            if done >= records:
                return samples
            if time.monotonic() > deadline:
                raise TimeoutError(f"{done:.0f} of {records} records after {timeout:.0f} s:\n{worker.tail()}")
            time.sleep(every)


def look(worker: Worker) -> Sample:
    at, metrics = time.monotonic(), worker.metrics()
    taken = total(metrics, "tidegate_records_consumed_total")
    done, dead = (
        total(metrics, "tidegate_records_processed_total", **only) for only in ({}, {"outcome": "dead_lettered"})
    )
    return Sample(at, taken, done, dead, worker.cpu, worker.rss)


def steady(samples: list[Sample]) -> tuple[float, float]:
    """Records per second and processor microseconds per record, from the last look before the first record was taken on.

    Not from the first commit: by then the next batches are half done, and their work would be counted as free.
    """
    first = next((a for a, b in itertools.pairwise(samples) if b.taken > 0), samples[0])
    last = samples[-1]
    return last.done / (last.at - first.at), (last.cpu - first.cpu) / last.done * 1e6
