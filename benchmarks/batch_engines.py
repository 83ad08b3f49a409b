"""The same windowed job on Spark by `tidegate batch run` and by Spark's own means, and what limits both. Every answer checked."""

from __future__ import annotations

import os
import statistics
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

import psutil
import psycopg
import pyarrow.parquet as pq

from benchmarks.batch_jobs import UNIQUE, Servers, pipeline_of
from benchmarks.engines import Done, Work, perform
from benchmarks.events import WINDOW, Answer, differences
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench

_SHOWN = {
    "ours": "tidegate batch run",
    "native": "native Spark: watermark, window, RocksDB, upsert",
    "read": "Spark reads, nothing else",
    "limit": "limit: confluent-kafka and DuckDB, no Spark, no database",
}
_WARM = 2  # passes over the topic that are timed, after one that is not
_OVER_NATIVE = {"1 000 keys": 2.0, "10 000 keys": 2.0, UNIQUE: 1.5}
_OF_THE_LIMIT, _RATE, _SCALE = 0.4, 100_000, 1.7
_SCALED: dict[str, dict[str, Any]] = {
    "the job above": {},
    "with a Python step for each record": {"handlers": [{"call": "benchmarks.engines.steps:same"}]},
}


def run(bench: Bench) -> Section:
    before = os.getloadavg()[0]
    section = Section("batch", "The same job on Spark: ours, native, and the limit")
    section.text(
        f"{thousands(bench.records)} JSON records of six fields, four partitions; two rules, lateness, one tumbling minute per "
        "user with count, sum, min and max, into PostgreSQL; `local[2]`, micro-batches of 500 000 records. Each engine has a "
        f"process of its own that goes over the topic {_WARM + 1} times, each time as a new query into a new table: the first "
        f"time is the cold one, the mean of the other {_WARM} the warm one. From the query's beginning to its end, so that "
        "planning, checkpoints and commits are in it; ours makes its tables in that time as well. Every answer, cold or warm, "
        "was compared with plain Python's. Almost unique: 9 users for 10 records, so that there are nearly as many results."
    )
    with Servers(bench) as servers:
        warm: dict[str, dict[str, Done]] = {}
        rows = []
        for name, keys in servers.keys(bench.records).items():
            warm[name] = {}
            truth = servers.truth(keys, bench.records)
            for engine, shown in _SHOWN.items():
                if not bench.wants("engines", engine):
                    continue
                each = passes(bench, servers, engine, keys, truth)
                warm[name][engine] = done = mean(each[1:])
                rows.append([name, shown, *_figures(each[0], done)])
                print("  " + "  ".join(map(str, rows[-1])), flush=True)
        columns = [
            "",
            "engine",
            "records/s warm",
            "CPU µs/record",
            "cold, s",
            "Spark's start, s",
            "first micro-batch, s",
        ]
        section.table(columns, rows)
        _targets(section, warm)
        load = f"{before:.1f} at the beginning and {os.getloadavg()[0]:.1f} at the end"
        section.text(f"The machine's load average was {load}; the engines above had their turns one after the other.")
        if bench.wants("engines", "ours") and bench.wants("keys", "10000"):
            _scaling(section, bench, servers)
    return section


def passes(
    bench: Bench,
    servers: Servers,
    engine: str,
    keys: int,
    truth: Answer,
    master: str = "local[2]",
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> list[Done]:
    """One process of the engine goes over the topic, cold and then warm; `beside` of the notes: processor seconds of broker and
    database, the mean of all passes. `changes`: to the pipeline. Raises RuntimeError for a wrong answer."""
    topic = servers.topic(keys, bench.records)
    tables = [f"t_{uuid.uuid4().hex[:8]}" for _ in range(1 + _WARM)]
    file = bench.directory / f"{tables[0]}.parquet"
    jobs = [
        {
            "topic": topic,
            "records": bench.records,
            "table": table,
            "pipeline": {**pipeline_of(bench, servers, topic, table), **changes},
            "answer": str(file),
        }
        for table in tables
    ]
    before = _servers_cpu()
    done = perform(engine, Work(bench.servers, servers.url, jobs, master))
    for one in done:
        one.notes["beside"] = (_servers_cpu() - before) / len(done)
    with psycopg.connect(servers.url, autocommit=True) as connection:
        for table in tables if engine in ("ours", "native") else ():
            _require(engine, _in_database(connection, table), truth)
            for kind, name in (("VIEW", table), ("TABLE", f"{table}_partials"), ("TABLE", table)):
                _drop(connection, kind, name)
    if engine == "limit":
        _require(engine, _in_file(str(file)), truth)
    return done


def _in_database(connection: psycopg.Connection, table: str) -> Answer:
    start = "CAST(extract(epoch FROM window_start) * 1000 AS BIGINT)"
    found = connection.execute(f'SELECT "user", {start}, n, total, least, most FROM "{table}"')
    return {(user, at): (n, total, least, most) for user, at, n, total, least, most in found}


def _in_file(name: str) -> Answer:
    columns = [column.to_pylist() for column in pq.read_table(name).columns]
    return {(user, at): (n, total, least, most) for user, at, n, total, least, most in zip(*columns, strict=True)}


def _drop(connection: psycopg.Connection, kind: str, name: str) -> None:
    """So that the next pass finds the same room on the disk and in the caches."""
    relkind = {"VIEW": "v", "TABLE": "r"}[kind]
    if connection.execute("SELECT 1 FROM pg_class WHERE relname = %s AND relkind = %s", (name, relkind)).fetchone():
        connection.execute(f'DROP {kind} "{name}"')


def _require(engine: str, found: Answer, truth: Answer) -> None:
    if wrong := differences(found, truth):
        raise RuntimeError(f"{engine}: {wrong} of {len(truth)} windows of {WINDOW} ms are wrong or missing")


def mean(passes: list[Done]) -> Done:
    """What one of them takes."""
    return Done(
        passes[0].records,
        statistics.mean(done.seconds for done in passes),
        passes[0].session,
        statistics.mean(done.cpu for done in passes),
        passes[-1].batches,
    )


def _figures(cold: Done, warm: Done) -> list[str]:
    first = f"{cold.batches[0]:.1f}" if cold.batches else ""
    started = f"{cold.session:.1f}" if cold.session else ""
    return [thousands(warm.rate), f"{warm.cpu / warm.records * 1e6:.1f}", f"{cold.seconds:.1f}", started, first]


def _targets(section: Section, warm: Mapping[str, Mapping[str, Done]]) -> None:
    """Those of which all engines were wanted."""
    for name, engines in warm.items():
        if engines.keys() >= {"ours", "native"}:
            times, wanted = engines["ours"].rate / engines["native"].rate, _OVER_NATIVE[name]
            section.target(f"≥ {wanted} × native at {name}", f"{times:.1f} ×", times >= wanted)
    for name, engines in warm.items():
        if engines.keys() >= {"ours", "limit"}:
            share = engines["ours"].rate / engines["limit"].rate
            section.target(f"≥ {_OF_THE_LIMIT:.0%} of the limit at {name}", f"{share:.0%}", share >= _OF_THE_LIMIT)
    for name, engines in warm.items():
        if "ours" not in engines:
            continue
        rate = engines["ours"].rate
        section.target(f"≥ {thousands(_RATE)} records/s at {name}", f"{thousands(rate)} records/s", rate >= _RATE)


def _scaling(section: Section, bench: Bench, servers: Servers) -> None:
    """One executor against two, on all cores and on one; broker, database and driver share them with the executors."""
    keys, rows, bounds, times = 10_000, [], [], dict[str, float]()
    truth, cores = servers.truth(keys, bench.records), os.cpu_count() or 1
    for job, changes in _SCALED.items():
        rates, busy = list[float](), list[float]()
        for master, given in (("local[1]", 1), ("local[1]", cores), ("local[2]", cores)):
            with on_cores(given):
                each = passes(bench, servers, "ours", keys, truth, master, changes)
            done = mean(each[1:])
            own, beside = done.cpu / done.records, each[0].notes["beside"] / done.records
            rates.append(done.rate)
            busy.append(done.rate * (own + beside))
            figures = f"{own * 1e6:.2f}", f"{beside * 1e6:.2f}", f"{busy[-1]:.2f}"
            rows.append([job, master, f"{given}", thousands(done.rate), *figures])
            print("  " + "  ".join(rows[-1]), flush=True)
        bounds.append(f"{cores / busy[1]:.2f} × ({job})")
        times[f"local[2] on two cores ≥ {_SCALE} × local[1] on one, {job}"] = rates[2] / rates[0]
        times[f"local[2] ≥ {_SCALE} × local[1], both on two cores, {job}"] = rates[2] / rates[1]
    section.text("One executor against two, 10 000 keys, warm; broker, database and driver have the same cores:")
    columns = ["job", "master", "cores", "records/s", "CPU µs/record of the run", "of broker and database", "at work"]
    section.table(columns, rows)
    section.text(
        f"With one executor more than one of {cores} cores is at work already: librdkafka reads in a thread beside the stages; "
        "driver, broker and database have theirs. If no core ever had nothing to do, a second executor could give as much as "
        f"the cores over those at work with one: {' and '.join(bounds)}. On one core all of them, the servers too, have that one."
    )
    for wanted, found in times.items():
        section.target(wanted, f"{found:.2f} ×", found >= _SCALE)


@contextmanager
def on_cores(number: int) -> Iterator[None]:
    """This process, what is below it and what they start meanwhile are on the first of the cores that it may use."""
    allowed = os.sched_getaffinity(0)
    _pin(set(sorted(allowed)[:number]))
    try:
        yield
    finally:
        _pin(allowed)


def _pin(cores: set[int]) -> None:
    mine = psutil.Process()
    for process in (mine, *mine.children(recursive=True)):
        with suppress(psutil.Error, ProcessLookupError):
            for thread in process.threads():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, cores)


def _servers_cpu() -> float:
    """Seconds of all processes below this one: between engines the broker and the database, with sessions that have ended."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
