"""Spark reads the topic, as a batch, and does nothing with it."""

from __future__ import annotations

from benchmarks.engines import FETCH, JAVA, Done, Stopwatch, given, session, tell


def main() -> None:
    work = given()
    with session(work, java_options=JAVA) as (spark, started):
        for job in work.jobs:
            watch = Stopwatch()
            options = {
                "kafka.bootstrap.servers": work.servers,
                "subscribe": job["topic"],
                "startingOffsets": "earliest",
            }
            frame = spark.read.format("kafka").options(**FETCH, **options).load()
            frame.select("topic", "partition", "offset", "timestamp", "key", "value").write.format("noop").mode(
                "overwrite"
            ).save()
            seconds, cpu = watch.read()
            tell(Done(job["records"], seconds, started, cpu))


if __name__ == "__main__":
    main()
