"""`tidegate demo`: the whole way, from an empty machine with Java to the proof."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rich.console import Console

from tidegate.clock import Clock, SystemClock
from tidegate.demo.compare import compare_dead_letters, compare_with_store
from tidegate.demo.flights import read_departures
from tidegate.demo.metrics import Snapshot, read_metrics
from tidegate.demo.poison import with_poison
from tidegate.demo.produce import DepartureProducer
from tidegate.demo.report import print_comparison, print_dead_letters, print_ledger, print_results
from tidegate.demo.truth import compute_truth
from tidegate.demo.view import LiveView, Progress
from tidegate.errors import StackError
from tidegate.local.process import GuardedProcess, free_ports, tail
from tidegate.local.progress import fetch
from tidegate.local.stack import LocalStack

TOPIC = "departures"
PARTITIONS = 6
_START_TIMEOUT = 60.0  # s until the worker is ready; 4 s measured
_STALL_TIMEOUT = 120.0  # s without one more record while there is lag
_QUIET = 5.0  # s of no change before it counts as the end: longer than the file's idleTimeout of 3 s
_LOG_READ, _LOG_SHOWN = 400, 40  # lines of the worker's log: read, and shown when it fails
_NOISE = ("nanobind:", "- leaked", "- ... skipped", "See https://nanobind")
_LOOK_EVERY = 0.25  # s between two looks at the worker


@dataclass(frozen=True, slots=True)
class Options:
    """`limit`: flights (None: all). `speed`: times real time (None: no limit). `poison`: malformed records to add."""

    limit: int | None = None
    speed: float | None = None
    keep: bool = False
    poison: int = 40


def run_demo(options: Options, console: Console, clock: Clock | None = None) -> bool:
    """Run the demo. True: every number is as it must be.

    1. fetch      Kafka's jars, the first time
    2. start      Kafka, PostgreSQL, the topic and a Faust worker on flights.yaml
    3. stream     the flights in the order in which they left, watched until the last one is accounted for
    4. show       results, dead letters, late windows, ledger
    5. prove      compare everything with the truth

    Raises StackError when something cannot be started or ends before its time. Nothing stays behind in any case.
    """
    clock = clock or SystemClock()
    fetch("broker")
    with console.status("reading the flights"):
        departures = read_departures(options.limit)
    total = len(departures) + (options.poison if departures else 0)
    with console.status("starting Kafka and PostgreSQL") as status, LocalStack() as stack:
        _create_topic(stack.kafka.bootstrap_servers)
        run = Run(stack, _write_pipeline(stack))
        status.update("starting the worker")
        run.start_worker()
        status.stop()
        records = with_poison(departures, options.poison)
        producer = DepartureProducer(stack.kafka.bootstrap_servers, TOPIC, records, options.speed)
        try:
            run.watch(producer, total, LiveView(console, clock), clock)
        finally:
            producer.stop()
        equal = run.report(producer, console)
        if options.keep:
            run.keep(console)
    return equal


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """The demo's pipeline file in the stack's directory, and what it says."""

    path: Path
    id: str
    http: str
    """The worker's HTTP address."""


class Run:
    """One run of the worker on the stack."""

    def __init__(self, stack: LocalStack, pipeline: PipelineFile) -> None:
        self._stack, self._pipeline = stack, pipeline
        self._worker: GuardedProcess | None = None

    def start_worker(self) -> None:
        """A `faust` process of its own; returns when it says that it is ready."""
        command = [sys.executable, "-m", "faust", "-A", "worker.app", "worker", "-l", "info"]
        self._worker = self._stack.run("worker", command, env={"TIDEGATE_PIPELINE": str(self._pipeline.path)})
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._is_ready():
            self._require_worker()
            if time.monotonic() > deadline:
                log = self._log_end()
                raise StackError(f"the worker was not ready within {_START_TIMEOUT:.0f} s:\n{log}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._pipeline.http}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def _require_worker(self) -> None:
        assert self._worker is not None
        if not self._worker.alive:
            raise StackError(f"the worker ended with code {self._worker.poll()}:\n{self._log_end()}")

    def _log_end(self) -> str:
        """The end of the worker's log, without what DuckDB's binding adds when the interpreter ends on an error."""
        assert self._worker is not None
        lines = tail(self._worker.log, _LOG_READ).splitlines()
        return "\n".join([line for line in lines if not line.lstrip().startswith(_NOISE)][-_LOG_SHOWN:])

    def watch(self, producer: DepartureProducer, total: int, view: LiveView, clock: Clock) -> None:
        """Draw until every record is accounted for and, windows having closed on quiet partitions, nothing changes."""
        producer.start()
        last, changed = Snapshot(), clock.monotonic()
        with view:
            while True:
                self._require_worker()
                done = producer.finished
                seen = read_metrics(f"{self._pipeline.http}/metrics", TOPIC) or last
                view.update(Progress(producer.produced, total, seen))
                if seen != last:
                    last, changed = seen, clock.monotonic()
                quiet = clock.monotonic() - changed
                if done and seen.records >= producer.produced and seen.lag == 0 and quiet >= _QUIET:
                    return
                if quiet > _STALL_TIMEOUT and (done or seen.lag > 0):
                    log = self._log_end()
                    raise StackError(f"the worker has made no progress for {_STALL_TIMEOUT:.0f} s:\n{log}")
                time.sleep(_LOOK_EVERY)

    def report(self, producer: DepartureProducer, console: Console) -> bool:
        """Print everything. True: all is equal to the truth and the ledger balances."""
        url, pipeline = self._stack.postgres.url, self._pipeline
        print_results(console, url, pipeline.id)
        letters = [json.loads(line) for line in self._tidegate("dlq", "list").stdout.splitlines()]
        print_dead_letters(console, letters)
        audit = self._tidegate("ledger")
        print_ledger(console, json.loads(audit.stdout)["partitions"])
        with console.status("computing the same in plain SQL"):
            truth = compute_truth(producer.table())
            compared = [*compare_with_store(truth, url, pipeline.id), compare_dead_letters(truth, letters)]
        return print_comparison(console, compared) and audit.returncode == 0

    def _tidegate(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the pipeline file, as a user would. Raises StackError when it prints nothing."""
        program = "from tidegate.cli.main import run; run()"
        command = [sys.executable, "-c", program, *words, str(self._pipeline.path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_without_settings())
        if done.returncode != 0 and not done.stdout:
            raise StackError(f"tidegate {' '.join(words)} failed:\n{done.stderr}")
        return done

    def keep(self, console: Console) -> None:
        """Leave everything running until Ctrl-C, and say how to reach it."""
        console.print(
            f"\nThe stack stays up until Ctrl-C. In another terminal:\n"
            f"  psql '{self._stack.postgres.url}'\n"
            f"  Kafka     {self._stack.kafka.bootstrap_servers}\n"
            f"  worker    {self._pipeline.http}/metrics\n"
            f"  tidegate status {self._pipeline.path}\n"
            f"  tidegate dlq list {self._pipeline.path}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self._require_worker()
                time.sleep(1)


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}


def _create_topic(bootstrap_servers: str) -> None:
    """The source topic. The records' timestamps are of 2013: with any retention they would be deleted at once."""
    topic = NewTopic(TOPIC, num_partitions=PARTITIONS, replication_factor=1, config={"retention.ms": "-1"})
    # Kept in a variable: gone before its answer, it would cancel the request. log_level 0: no notes about that either.
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    for created in admin.create_topics([topic]).values():
        created.result(30)


def _write_pipeline(stack: LocalStack) -> PipelineFile:
    """flights.yaml with this stack's addresses, in the stack's directory."""
    document = yaml.safe_load(Path(__file__).with_name("flights.yaml").read_text())
    port = free_ports(1)[0]
    document["kafka"]["bootstrapServers"] = stack.kafka.bootstrap_servers
    for sink in document["sinks"]:
        if sink["type"] == "postgres":
            sink["url"] = stack.postgres.url
    document["telemetry"]["port"] = port
    document["worker"] = {"stateDir": str(stack.directory / "state")}
    path = stack.directory / "flights.yaml"
    path.touch(mode=0o600)  # it holds the database's password
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return PipelineFile(path, document["pipelineId"], f"http://127.0.0.1:{port}")
