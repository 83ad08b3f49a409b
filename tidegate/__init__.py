"""tidegate: one declared pipeline over Kafka topics, on two engines, losing nothing.

A map for readers. Imports go one way: worker, batch → dlq → transport → tidegate.

    tidegate/stages/pipeline.py   the whole way of a record, in one function: start here
    tidegate/record.py            the words: stages, lanes, source partitions, ids
    tidegate/errors.py            the whole error tree: whose fault, and is it worth trying again
    tidegate/ledger.py            read = accepted + dead-lettered + late + deferred + duplicate + filtered + skipped
    tidegate/config/              the pipeline file, from text to models, with errors that name the field
    tidegate/diagram.py           the plan of a pipeline in words, as `tidegate check` and the console show it
    tidegate/stages/              decode, rules, dedupe, event time, handle, aggregate: vectorised, engine-neutral
    tidegate/store/               results and offsets in one transaction (PostgreSQL, SQLite)
    tidegate/resilience/          retry on backoff, breaker on pybreaker, both around every outside call
    tidegate/telemetry/           metric definitions, Prometheus, health, logs
    tidegate/reach.py             why Kafka does not answer, with the setting that is at fault
    tidegate/local/               a real Kafka and PostgreSQL on this machine, for the demo and the tests
    tidegate/demo/                real flights through all of it, compared with plain SQL
    tidegate/cli/                 the command line

    worker/commit.py              can this lose a record? The order of all writes
    worker/partition.py           the life of an assigned partition: open, work, wait out an outage, close
    batch/sink.py                 the same for the second engine, Spark: a micro-batch's writes in order
    batch/stage.py                what an executor does with one partition's share of a micro-batch
    batch/catchup/run.py          how Spark takes over from workers and hands back; worker/reload.py is their side of it
    transport/                    Faust in record batches, and how a process on it lives
    transport/ending.py           how a process ends: one budget of time for all of it, and a last resort
    dlq/letter.py, envelope.py    what a dead letter carries, as it is made and as it is read
    dlq/s3/                       dead letters in S3: uploader.py has why none is lost or doubled there
    dlq/retry/                    records that wait, and go back, before they are dead letters
    dlq/index/                    dead letters grouped, searched and worked on: `tidegate dlq agent` fills it
    dlq/replay/                   how they go back, each once: run.py has a job's turns, sender.py why nothing is sent twice
"""

from importlib.metadata import version

__version__ = version("tidegate")

__all__ = ["__version__"]
