"""Records per second of one worker, what a record costs it and where, and the limit: aiokafka alone."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.events import PARTITIONS
from benchmarks.process import Worker, job, running, steady, total, watch
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench

TARGETS = {10_000: 75_000, 1_000: 110_000}  # keys → records per second
_ACTIVITIES = {
    "process": "decode, event time, windows, state rows",
    "quality": "rules",
    "dlq": "dead letters",
    "sink": "store and sinks",
    "commit": "Kafka transaction and RocksDB",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One worker over one topic. `stages`: activity → µs per record; `peak`: RSS in bytes."""

    rate: float
    cpu: float
    stages: dict[str, float]
    peak: int


def measure(bench: Bench, topic: str, records: int) -> Run:
    """Start a worker on the topic, watch it to the end."""
    with running(Worker(job(bench, topic), bench.directory)) as worker:
        samples = watch(worker, records, every=0.25)
        metrics = worker.metrics()
    rate, cpu = steady(samples)
    name = "tidegate_worker_time_seconds_total"
    stages = {a: total(metrics, name, activity=a) / records * 1e6 for a in _ACTIVITIES}
    return Run(rate, cpu, stages, max(sample.rss for sample in samples))


async def _getmany(bench: Bench, topic: str, records: int) -> tuple[float, float]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bench.servers,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=2_097_152,  # as the worker
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        done, began, cpu = 0, time.monotonic(), time.process_time()
        while done < records:
            found = await consumer.getmany(timeout_ms=1000, max_records=32_768)
            done += sum(map(len, found.values()))
        return done / (time.monotonic() - began), (time.process_time() - cpu) / done * 1e6
    finally:
        await consumer.stop()


def run(bench: Bench) -> Section:
    section = Section("throughput", "Throughput of one worker")
    runs = 1 if bench.quick else 3
    section.text(
        f"{thousands(bench.records)} JSON records of six fields, four partitions; two rules, lateness, one tumbling minute "
        "per user with count, sum, min and max; RocksDB, changelog in one transaction per batch. Counted from the last "
        f"look before the first record was taken on. Median of {runs} runs."
    )
    rows, stages = [], {}
    for keys, wanted in TARGETS.items():
        topic = bench.events(keys, bench.records)
        limits = [asyncio.run(_getmany(bench, topic, bench.records)) for _ in range(runs)]
        found = []
        for number in range(runs):
            found.append(measure(bench, topic, bench.records))
            print(
                f"  {keys} keys, run {number + 1}: {found[-1].rate:,.0f} records/s, {found[-1].cpu:.1f} µs CPU/record"
            )
        rate, cpu = statistics.median(r.rate for r in found), statistics.median(r.cpu for r in found)
        limit, limit_cpu = (statistics.median(column) for column in zip(*limits, strict=True))
        spread = f"{thousands(min(r.rate for r in found))} – {thousands(max(r.rate for r in found))}"
        peak = statistics.median(r.peak for r in found) / 2**20
        rows.append([keys, thousands(rate), spread, f"{cpu:.1f}", f"{peak:.0f}", thousands(limit), f"{limit_cpu:.1f}"])
        stages[keys] = {a: statistics.median(r.stages[a] for r in found) for a in _ACTIVITIES}
        section.target(
            f"≥ {thousands(wanted)} records/s at {thousands(keys)} keys", f"{thousands(rate)} records/s", rate >= wanted
        )
    section.table(
        [
            "keys",
            "records/s",
            "range",
            "CPU µs/record",
            "peak RSS MiB",
            "limit: aiokafka getmany, records/s",
            "its CPU µs",
        ],
        rows,
    )
    section.text(
        "Where the time goes (`tidegate_worker_time_seconds_total`, µs per record; stages run in threads of several "
        "partitions at once, so wall-clock time waiting for a processor is in it):"
    )
    shown = [[f"{a}: {what}", *(f"{stages[keys][a]:.2f}" for keys in stages)] for a, what in _ACTIVITIES.items()]
    section.table(["activity", *(f"{thousands(keys)} keys" for keys in stages)], shown)
    return section
