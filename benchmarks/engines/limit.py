"""What one process without Spark can do: confluent-kafka reads in one thread, DuckDB decodes and aggregates in others."""

from __future__ import annotations

import queue
import threading
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, TopicPartition

from benchmarks.engines import Done, Stopwatch, Work, given, tell
from benchmarks.events import PARTITIONS, WINDOW

_AT_ONCE = 50_000  # records
_PARTIALS = f"""
    SELECT "user", v.event_time // {WINDOW} * {WINDOW} AS start,
        count(*) AS n, sum(v.amount) AS total, min(v.amount) AS least, max(v.amount) AS most
    FROM (SELECT key AS "user", from_json(value, '{{"amount": "DOUBLE", "currency": "VARCHAR", "event_time": "BIGINT"}}') AS v
          FROM chunk)
    WHERE v.amount BETWEEN 0 AND 1000 AND regexp_full_match(v.currency, '[A-Z]{{3}}')
    GROUP BY ALL"""
_TOTALS = """
    SELECT "user", start, sum(n)::BIGINT AS n, sum(total) AS total, min(least) AS least, max(most) AS most
    FROM partials GROUP BY ALL"""


def _read(work: Work, job: dict[str, Any], chunks: queue.Queue[pa.Table | None]) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": work.servers,
            "group.id": "limit",
            "enable.auto.commit": False,
            "fetch.min.bytes": 1_000_000,
            "fetch.message.max.bytes": 8_388_608,
            "queued.min.messages": 500_000,
        }
    )
    consumer.assign([TopicPartition(job["topic"], number, 0) for number in range(PARTITIONS)])
    done = 0
    while done < job["records"]:
        messages = consumer.consume(_AT_ONCE, 1.0)
        done += len(messages)
        if messages:
            keys = pa.array([message.key() for message in messages], pa.binary()).cast(pa.string())
            values = pa.array([message.value() for message in messages], pa.binary()).cast(pa.string())
            chunks.put(pa.table({"key": keys, "value": values}))
    chunks.put(None)
    consumer.close()


def main() -> None:
    work = given()
    for job in work.jobs:
        con = duckdb.connect(":memory:", config={"threads": 2})
        con.execute(
            'CREATE TABLE partials ("user" VARCHAR, start BIGINT, n BIGINT, total DOUBLE, least DOUBLE, most DOUBLE)'
        )
        chunks: queue.Queue[pa.Table | None] = queue.Queue(4)
        watch = Stopwatch()
        reader = threading.Thread(target=_read, args=(work, job, chunks))
        reader.start()
        while (chunk := chunks.get()) is not None:
            con.register("chunk", chunk)
            con.execute(f"INSERT INTO partials {_PARTIALS}")
        totals = con.sql(_TOTALS).to_arrow_table()
        seconds, cpu = watch.read()
        reader.join()
        pq.write_table(totals, job["answer"])
        tell(Done(job["records"], seconds, 0.0, cpu))
        con.close()


if __name__ == "__main__":
    main()
