"""The same windowed job in tidegate, in plain Faust and in Quix Streams: the same records, every answer checked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.events import PARTITIONS, Answer, answer, differences, events
from benchmarks.process import Worker, job, running, steady, watch
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench
from tidegate.config.loading import load_pipeline
from tidegate.stages.aggregate import finalize
from tidegate.stages.plan import compile_plan
from tidegate.stages.sql import connect
from worker.statedb import PartitionDB
from worker.windows import BEGINNING, FOREVER, WindowTable

_KEYS = 10_000
_RECORDS, _QUICK_RECORDS = (
    40_000,
    15_000,
)  # of the peers: a tenth of a minute each, and their rate does not grow with more
_TIMEOUT = 180.0  # seconds for one run of a peer


@dataclass(frozen=True, slots=True)
class Peer:
    """`arguments`: of Python in an environment that has only `packages`."""

    name: str
    packages: tuple[str, ...]
    arguments: tuple[str, ...]
    floor: int  # tidegate is to be so many times as fast
    configuration: str


_HERE = Path(__file__).parent
PEERS = (
    Peer(
        "Faust",
        ("faust-streaming==0.15.3", "aiokafka==0.14.0", "rocksdict==0.3.29", "cramjam", "orjson", "uvloop"),
        (str(_HERE / "faust_agent.py"), "-L", "uvloop", "worker", "-l", "warn", "--without-web"),
        20,
        "0.15.3 with its compiled extensions, uvloop and orjson; an agent per record over a table on RocksDB with its "
        "changelog (user and window in the key: its own windowed tables expire by the clock of the wall); no standby "
        "replicas, larger buffers and batches than by default",
    ),
    Peer(
        "Quix Streams",
        ("quixstreams==3.28.1", "orjson"),
        (str(_HERE / "quix_app.py"),),
        10,
        "3.28.1; `tumbling_window(…).agg(…).current()` with RocksDB and changelog, its checkpoint every 5 s as by default, "
        "lz4 and 50 ms of linger for the producer",
    ),
)  # fmt: skip


def run(bench: Bench) -> Section:
    records = _QUICK_RECORDS if bench.quick else _RECORDS
    rounds = 1 if bench.quick else 3
    ours, theirs = bench.events(_KEYS, bench.records), bench.events(_KEYS, records)
    truth = {bench.records: answer(events(bench.records, _KEYS)), records: answer(events(records, _KEYS))}
    rates: dict[str, list[float]] = {"tidegate": [], **{peer.name: [] for peer in PEERS}}
    for _ in range(rounds):
        rate, found = _tidegate(bench, ours)
        _keep(rates, "tidegate", rate, differences(found, truth[bench.records]))
        for peer in PEERS:
            rate, found = _peer(bench, peer, theirs, records)
            _keep(rates, peer.name, rate, differences(found, truth[records]))
    medians = {name: statistics.median(each) for name, each in rates.items()}
    section = Section("peers", "The same job in plain Faust and in Quix Streams")
    section.text(
        f"{thousands(_KEYS)} users, JSON, two rules, one tumbling minute per user with count, sum, min and max, changelog; "
        f"{thousands(bench.records)} records for tidegate, the first {thousands(records)} of the same for the others, whose "
        f"rate does not depend on it. From the first record to the last; start-up is not counted, and for the others "
        f"neither is the commit of what came last. The windows of every run were compared with plain Python's, and are the "
        f"same. Median of {rounds} rounds, in turn."
    )
    rows = [
        [name, thousands(rate), f"{medians['tidegate'] / rate:.1f}", " – ".join(thousands(f(rates[name])) for f in (min, max))]
        for name, rate in medians.items()
    ]  # fmt: skip
    section.table(["", "records/s", "tidegate is × as fast", "range"], rows)
    section.text(*(f"- {peer.name}: {peer.configuration}." for peer in PEERS))
    for peer in PEERS:
        times = medians["tidegate"] / medians[peer.name]
        section.target(f"≥ {peer.floor} × {peer.name}", f"{times:.1f} ×", times >= peer.floor)
    return section


def _keep(rates: dict[str, list[float]], name: str, rate: float, wrong: int) -> None:
    print(f"  {name}: {rate:,.0f} records/s, {wrong} windows differ", flush=True)
    if wrong:
        raise AssertionError(f"{name}: {wrong} windows are not what plain Python finds")
    rates[name].append(rate)


def _tidegate(bench: Bench, topic: str) -> tuple[float, Answer]:
    with running(Worker(job(bench, topic), bench.directory)) as worker:
        samples = watch(worker, bench.records, every=0.25)
    return steady(samples)[0], _windows(worker, topic)


def _windows(worker: Worker, topic: str) -> Answer:
    """What the worker's own state says, once it has stopped."""
    name = worker.pipeline["pipelineId"]
    plan = compile_plan(load_pipeline(worker.directory / f"{name}.yaml"))
    (aggregation,), connection = plan.aggregations, connect()
    found: Answer = {}
    for partition in range(PARTITIONS):
        db = PartitionDB(worker.state / name / topic / str(partition))
        rows = WindowTable(aggregation, connection).ending(db, BEGINNING, FOREVER).table
        db.close()
        columns = finalize(aggregation, rows, connection).select(
            ["user", "window_start", "n", "total", "least", "most"]
        )
        for user, start, *measures in zip(*(column.to_pylist() for column in columns.columns), strict=True):
            found[user, start] = tuple(measures)
    return found


def _peer(bench: Bench, peer: Peer, topic: str, records: int) -> tuple[float, Answer]:
    """Run a peer in its own environment until it has told its answer."""
    name = f"peer-{uuid.uuid4().hex[:8]}"
    out, state, log = (bench.directory / f"{name}{suffix}" for suffix in (".json", "-state", ".log"))
    state.mkdir()
    packages = [word for package in peer.packages for word in ("--with", package)]
    command = [
        "uv",
        "run",
        "--quiet",
        "--isolated",
        "--no-project",
        "--python",
        "3.11",
        *packages,
        "python",
        *peer.arguments,
    ]
    told = {
        "BENCH_SERVERS": bench.servers, "BENCH_TOPIC": topic, "BENCH_RECORDS": str(records), "BENCH_NAME": name,
        "BENCH_STATE": str(state), "BENCH_OUT": str(out),
    }  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**environment, **told}, cwd=state, stdout=file, stderr=file, start_new_session=True
        )
    try:
        answered = _await(process, out, log)
    finally:
        _end(process)
    seconds = answered["last"] - answered["first"]
    return records / seconds, {(user, start): tuple(rest) for user, start, *rest in answered["windows"]}


def _await(process: subprocess.Popen[bytes], out: Path, log: Path) -> Any:
    deadline = time.monotonic() + _TIMEOUT
    while not out.exists():
        if process.poll() is not None and not out.exists():
            raise RuntimeError(f"the peer ended with code {process.returncode}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"the peer has no answer after {_TIMEOUT:.0f} s:\n{_tail(log)}")
        time.sleep(0.1)
    return json.loads(out.read_text())


def _tail(log: Path, lines: int = 30) -> str:
    kept: Sequence[str] = log.read_text(errors="replace").splitlines()
    return "\n".join(kept[-lines:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """It has told all it knows: what it would still write is not asked for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
