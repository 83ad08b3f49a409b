"""One worker against a catch-up over the same backlog, into the same database: which is faster, and from which lag on it pays."""

from __future__ import annotations

import statistics

from benchmarks.batch_engines import mean, passes
from benchmarks.batch_jobs import Servers, pipeline_of
from benchmarks.process import Worker, running, steady, watch
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench

_KEYS, _TIMES = 10_000, 1.5


def run(bench: Bench) -> Section:
    section = Section("batch_catchup", "Taking over a backlog: one worker, or Spark")
    section.text(
        f"{thousands(bench.records)} records, {thousands(_KEYS)} keys, the job above into PostgreSQL. The worker keeps its "
        "changelog and RocksDB as ever; steady rate, from its first batch on. Spark: what a catch-up runs while it holds the "
        "pipeline, in a session of its own; the first pass is cold, the mean of the others warm. Both on the same two cores, one "
        "after the other."
    )
    with Servers(bench) as servers:
        worker = statistics.median(_worker(bench, servers) for _ in range(1 if bench.quick else 2))
        runs = passes(bench, servers, "ours", _KEYS, servers.truth(_KEYS, bench.records))
    cold, warm = runs[0], mean(runs[1:])
    section.table(
        ["", "records/s"],
        [
            ["one worker", thousands(worker)],
            ["Spark, cold", thousands(cold.rate)],
            ["Spark, warm", thousands(warm.rate)],
        ],
    )
    times, lost = warm.rate / worker, cold.seconds - warm.seconds
    if times > 1:
        lag = lost / (1 / worker - 1 / warm.rate)
        section.text(
            f"A catch-up's first micro-batches cost {lost:.1f} s more than warm ones, while it holds the pipeline (Spark starts "
            f"before that, in {cold.session:.1f} s, while the workers go on). It is over sooner than one worker would be from a "
            f"lag of about {thousands(lag)} records on."
        )
    else:
        section.text("One worker that is alive is done sooner, whatever the lag: a catch-up is for when it is not.")
    section.target(f"a catch-up, warm, ≥ {_TIMES} × one worker", f"{times:.2f} ×", times >= _TIMES)
    return section


def _worker(bench: Bench, servers: Servers) -> float:
    """Records per second."""
    topic = servers.topic(_KEYS, bench.records)
    with running(Worker(pipeline_of(bench, servers, topic), bench.directory)) as worker:
        rate, _ = steady(watch(worker, bench.records, every=0.25))
    return rate
