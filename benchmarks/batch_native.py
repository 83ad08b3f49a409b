"""What native Spark drops, and how its answer depends on the size of its micro-batches; and what we do of the same topic."""

from __future__ import annotations

import uuid
import zlib
from collections import Counter
from typing import Any

import psycopg

from benchmarks.batch_jobs import Servers, pipeline_of
from benchmarks.engines import Work, perform
from benchmarks.events import LAGS, PARTITIONS, SHARES, WINDOW, fill, skewed
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench

_RECORDS = 200_000
_SIZES: tuple[int | None, ...] = (None, 50_000, 12_500)  # records of a micro-batch


def run(bench: Bench) -> Section:
    records = min(bench.records, _RECORDS)
    section = Section("batch_native", "What native Spark drops")
    behind = ", ".join(f"{share:.0%} {lag // WINDOW} min behind" for share, lag in zip(SHARES, LAGS, strict=True))
    section.text(
        f"{thousands(records)} records; of the four partitions have {behind} in event time, as after one producer's outage. No "
        "record is more than 5 s behind the newest of its partition, and both engines allow 10 s, so that none is late. Counted "
        "in the windows of the database, by partition."
    )
    topic = bench.topic("skewed", {"retention.ms": "-1"})
    rows: list[list[Any]] = []
    with Servers(bench) as servers:
        fill(bench.servers, topic, skewed(records))
        for engine in ("native", "ours"):
            jobs: list[dict[str, Any]] = [
                {
                    "topic": topic,
                    "records": records,
                    "table": (table := f"t_{uuid.uuid4().hex[:8]}"),
                    "pipeline": pipeline_of(bench, servers, topic, table),
                    "max_records": size,
                }
                for size in _SIZES
            ]
            for job, done in zip(jobs, perform(engine, Work(bench.servers, servers.url, jobs)), strict=True):
                counted = _counted(servers.url, str(job["table"]))
                size = thousands(job["max_records"]) if job["max_records"] else "all"
                said = thousands(done.notes["dropped"]) if engine == "native" else "0"
                each = [thousands(counted[partition]) for partition in range(PARTITIONS)]
                rows.append([engine, size, len(done.batches), thousands(counted.total()), *each, said])
    partitions = [f"partition {partition}" for partition in range(PARTITIONS)]
    section.table(["", "micro-batch", "micro-batches", "counted", *partitions, "dropped, as the engine says"], rows)
    ours = {row[3] for row in rows if row[0] == "ours"}
    section.target("ours counts every record, whatever the micro-batch", ", ".join(ours), ours == {thousands(records)})
    return section


def _counted(url: str, table: str) -> Counter[int]:
    """Records in the windows, by the partition that their user is in."""
    counted: Counter[int] = Counter()
    with psycopg.connect(url) as connection:
        for user, n in connection.execute(f'SELECT "user", CAST(sum(n) AS BIGINT) FROM "{table}" GROUP BY "user"'):
            counted[zlib.crc32(user.encode()) % PARTITIONS] += n
    return counted
