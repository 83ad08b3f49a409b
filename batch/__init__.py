"""The second engine: Spark Structured Streaming over the same pipeline files, stages, store and dead letters.

run.py        a run from start to end: what to start from, the micro-batches, how it ends
attempts.py   an attempt after each outage, from where the store is
streaming.py  micro-batches by Spark's query
ahead.py      one is computed while Spark plans the next
planned.py    micro-batches without one, behind Spark Connect
microbatch.py one of them, through the executors and into the store
source.py     where to start, from the store; where a micro-batch ends
executors.py  tasks for Spark's executors
stage.py      what an executor does with one partition's share of a micro-batch
fetch.py      how it reads that share
sink.py       the order of all writes of a micro-batch: dead letters, then one store transaction
publish/      the sinks that follow the store
claims.py     the hold on the partitions in the store
written.py    what the run has added to there, and hence what is new
pauses.py     what a run does while nothing comes
catchup/      takes over from the workers, and hands back
observe.py    what a run tells a Prometheus
runs/         its row in the database, and the commands that read it
backfill/     late records into the windows that miss them; windows computed anew
archive/      source topics as Parquet, and the log read from there
session.py    the Spark session, and its end without a process left
connect.py    a session behind Spark Connect
"""
