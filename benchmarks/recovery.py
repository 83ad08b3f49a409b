"""A worker that has lost its local state: how fast the changelog gives it back, and what a million open windows weigh."""

from __future__ import annotations

import datetime
import re
import shutil
import time
from dataclasses import dataclass

from benchmarks.events import events, fill
from benchmarks.process import Worker, job, look, running, total, watch
from benchmarks.progress import bar
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench

_ROWS_PER_SECOND = 100_000
_RSS_MB = 600
_ROWS, _QUICK_ROWS = 1_000_000, 200_000
_MORE = 300_000  # records that then change rows of the restored state
_PER_MS = 1_000  # records per ms of event time: all rows are in one window, and it stays open
_RESTORED = re.compile(r"^(\S+Z) .*state\.restored.* records=(\d+) seconds=([\d.]+)", re.MULTILINE)
_PATIENCE = 120.0  # seconds for the restore


@dataclass(frozen=True, slots=True)
class Memory:
    """RSS in bytes: the most while restoring, once restored, the most while processing."""

    restoring: int
    restored: int
    processing: int


def run(bench: Bench) -> Section:
    rows = _QUICK_ROWS if bench.quick else _ROWS
    topic = bench.topic("recovery", {"retention.ms": "-1"})
    worker = Worker(job(bench, topic), bench.directory)
    with bar(f"writing {rows} records of as many users", rows) as progress:
        fill(bench.servers, topic, events(rows, rows, per_ms=_PER_MS, in_turn=True), progress)
    with running(worker):
        before = max(sample.rss for sample in watch(worker, rows))
    shutil.rmtree(worker.state)
    worker.log.unlink()
    with running(worker):
        memory = _restart(bench, worker, topic, rows)
    restored, seconds = _restored(worker.log.read_text(errors="replace"))
    if restored < rows:
        raise AssertionError(f"{restored} rows were restored, not {rows}")
    section = Section("recovery", "Restoring the state, and its memory")
    rate = restored / seconds
    section.text(
        f"{thousands(rows)} rows of one open window, one per user, in four partitions; the worker is stopped, its local state "
        f"deleted, and started again: from the first partition's restore to the end of the last one's. Then {thousands(_MORE)} "
        "records change rows of that state."
    )
    section.table(
        [
            "changelog records",
            "seconds",
            "rows/s",
            "RSS MB at most while restoring",
            "restored",
            "at most while processing",
        ],
        [
            [
                thousands(restored),
                f"{seconds:.1f}",
                thousands(rate),
                *(f"{b / 1e6:.0f}" for b in (memory.restoring, memory.restored, memory.processing)),
            ]
        ],
    )
    section.text(f"While it made these rows, at full speed, the worker had at most {before / 1e6:.0f} MB.")
    section.target(
        f"≥ {thousands(_ROWS_PER_SECOND)} rows/s restored", f"{thousands(rate)} rows/s", rate >= _ROWS_PER_SECOND
    )
    most = max(memory.restored, memory.processing) / 1e6
    section.target(
        f"≤ {_RSS_MB} MB with {thousands(rows)} open rows, restored and at work", f"{most:.0f} MB", most <= _RSS_MB
    )
    return section


def _restart(bench: Bench, worker: Worker, topic: str, rows: int) -> Memory:
    """Watch the restore, then the work on what was restored."""
    restoring, deadline = 0, time.monotonic() + _PATIENCE
    while total(worker.metrics(), "tidegate_state_restored_records_total") < rows:
        worker.require_running()
        restoring = max(restoring, worker.rss)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the state was not restored after {_PATIENCE:.0f} s:\n{worker.tail()}")
        time.sleep(0.05)
    worker.wait_ready()
    restored = look(worker).rss
    fill(bench.servers, topic, events(_MORE, rows, per_ms=_PER_MS))
    return Memory(restoring, restored, max(sample.rss for sample in watch(worker, _MORE)))


def _restored(log: str) -> tuple[int, float]:
    """Rows, and seconds from the first partition's begin to the last one's end, as the worker's log has them."""
    found = [(datetime.datetime.fromisoformat(at).timestamp(), int(n), float(s)) for at, n, s in _RESTORED.findall(log)]
    if not found:
        raise AssertionError("the worker's log tells of no restore")
    begun, ended = min(at - seconds for at, _, seconds in found), max(at for at, _, _ in found)
    return sum(records for _, records, _ in found), ended - begun
