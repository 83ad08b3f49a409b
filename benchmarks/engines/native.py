"""The job as Spark itself does it: `withWatermark` + `window`, state in RocksDB, upsert to PostgreSQL in `foreachBatch`.

The upsert is the fastest we know: Arrow to the driver, COPY, one INSERT … ON CONFLICT. Spark's JDBC takes several times as long.
"""

from __future__ import annotations

import tempfile
from typing import Any

import psycopg
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.engines import FETCH, JAVA, MICRO_BATCH, Done, Stopwatch, Work, given, session, tell
from tidegate.store.copying import as_copied

CONF = {
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    ),
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    "spark.sql.shuffle.partitions": "2",
}
_VALUE = "id bigint, user_id string, amount double, currency string, event_time bigint, status string"


def counted(spark: SparkSession, servers: str, topic: str, max_records: int | None) -> DataFrame:
    """Per minute and user: count, sum, min, max of `amount`."""
    options = {
        **FETCH,
        "kafka.bootstrap.servers": servers,
        "subscribe": topic,
        "startingOffsets": "earliest",
        "kafka.isolation.level": "read_committed",
    }
    if max_records is not None:
        options["maxOffsetsPerTrigger"] = str(max_records)
    value = F.from_json(F.col("value").cast("string"), _VALUE).alias("v")
    return (
        spark.readStream.format("kafka")
        .options(**options)
        .load()
        .select(F.col("key").cast("string").alias("user"), value)
        .select("user", "v.amount", "v.currency", F.timestamp_millis("v.event_time").alias("at"))
        .where("amount BETWEEN 0 AND 1000 AND currency RLIKE '^[A-Z]{3}$'")
        .withWatermark("at", "10 seconds")
        .groupBy(F.window("at", "1 minute").alias("w"), "user")
        .agg(
            F.count("*").alias("n"),
            F.sum("amount").alias("total"),
            F.min("amount").alias("least"),
            F.max("amount").alias("most"),
        )
        .select(F.col("w.start").alias("window_start"), "user", "n", "total", "least", "most")
    )


class Upsert:
    """The function of `foreachBatch`."""

    def __init__(self, url: str, table: str) -> None:
        self._connection, self._table = psycopg.connect(url), table
        columns = (
            'window_start timestamptz, "user" text, n bigint, total double precision, '
            "least double precision, most double precision"
        )
        with self._connection.transaction():
            self._connection.execute(f'CREATE TABLE "{table}" ({columns}) WITH (fillfactor = 70)')
            self._connection.execute(f'ALTER TABLE "{table}" ADD UNIQUE (window_start, "user")')
            self._connection.execute(f"CREATE TEMPORARY TABLE staged ({columns}) ON COMMIT DELETE ROWS")

    def __call__(self, frame: DataFrame, batch_id: int) -> None:
        rows = frame.toArrow()
        if not rows.num_rows:
            return
        names = ", ".join(f'"{name}"' for name in rows.column_names)
        updates = ", ".join(f"{name} = excluded.{name}" for name in ("n", "total", "least", "most"))
        with self._connection.transaction(), self._connection.cursor() as cursor:
            form, parts = as_copied(rows)
            with cursor.copy(f"COPY staged ({names}) FROM STDIN (FORMAT {form})") as copy:
                for part in parts:
                    copy.write(memoryview(part))
            cursor.execute(
                f'INSERT INTO "{self._table}" ({names}) SELECT {names} FROM staged '
                f'ON CONFLICT (window_start, "user") DO UPDATE SET {updates}'
            )


def _run(spark: SparkSession, work: Work, job: dict[str, Any], started: float) -> Done:
    upsert = Upsert(work.postgres, job["table"])
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as checkpoint:
        watch = Stopwatch()
        query = (
            counted(spark, work.servers, job["topic"], job.get("max_records", MICRO_BATCH))
            .writeStream.outputMode("update")
            .foreachBatch(upsert)
            .trigger(availableNow=True)
            .option("checkpointLocation", checkpoint)
            .start()
        )
        query.awaitTermination()
        seconds, cpu = watch.read()
        progress = query.recentProgress
    batches = [p["durationMs"]["triggerExecution"] / 1000 for p in progress if p["numInputRows"]]
    dropped = sum(o["numRowsDroppedByWatermark"] for p in progress for o in p["stateOperators"])
    return Done(sum(p["numInputRows"] for p in progress), seconds, started, cpu, batches, {"dropped": dropped})


def main() -> None:
    work = given()
    with session(work, java_options=JAVA) as (spark, started):
        for name, value in CONF.items():
            spark.conf.set(name, value)
        for job in work.jobs:
            tell(_run(spark, work, job, started))


if __name__ == "__main__":
    main()
