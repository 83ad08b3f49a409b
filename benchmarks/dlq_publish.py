"""How long a dead letter takes at a steady rate: the transaction that it is part of, and all the way to who reads it."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.events import PARTITIONS
from benchmarks.process import Worker, job, running
from benchmarks.progress import bar
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench
from tidegate.telemetry import metric_defs as m

_RATE, _P99_MS = 1_000, 100  # records a second, all of which fail; ms
_WARM_UP, _SECONDS, _QUICK_SECONDS = 5.0, 60, 15
_TICK = 0.005  # seconds between two rounds of the producer
_PATIENCE = 60.0  # seconds for the last letters
_BUCKET = re.compile(rf'{m.DLQ_PUBLISH_DURATION.name}_bucket{{.*le="([^"]+)"')
Buckets = dict[float, float]


def run(bench: Bench) -> Section:
    """Every record breaks a rule; transactions during the warm-up are not counted."""
    seconds = _QUICK_SECONDS if bench.quick else _SECONDS
    topic, letters = bench.topic("publish", {"retention.ms": "-1"}), bench.topic("publish.dlq", {"retention.ms": "-1"})
    worker = Worker(_job(bench, topic, letters), bench.directory)
    with running(worker):
        worker.wait_ready()
        arrived, before = _follow(bench, worker, topic, letters, seconds)
        after = _buckets(worker)
    bound = _quantile({le: after[le] - before.get(le, 0.0) for le in after}, 0.99) * 1000
    p50, p99 = np.percentile(np.array(arrived) / 1e6, [50, 99])
    section = Section("publish", "Publishing dead letters at a steady rate")
    section.text(
        f"{thousands(_RATE)} records/s for {seconds} s, four partitions, each of which breaks a rule. Publishing is the batch's "
        "transaction with the dead letters in it, until Kafka has confirmed it, from the worker's own histogram (the bound of "
        "the bucket). The whole way is from producing the record to a `read_committed` consumer; "
        f"{thousands(len(arrived))} letters."
    )
    section.table(
        ["publishing, p99 ms ≤", "the whole way, p50 ms", "p99 ms"], [[f"{bound:.0f}", f"{p50:.0f}", f"{p99:.0f}"]]
    )
    section.target(
        f"publishing p99 < {_P99_MS} ms at {thousands(_RATE)} letters/s", f"≤ {bound:.0f} ms", bound <= _P99_MS
    )
    return section


def _job(bench: Bench, topic: str, letters: str) -> dict[str, Any]:
    errors = {
        "deadLetterQueue": {"type": "kafka", "config": {"topic": letters}},
        "floodGuard": {"enabled": False},
    }
    return job(bench, topic, errorHandling=errors)


def _follow(bench: Bench, worker: Worker, topic: str, letters: str, seconds: int) -> tuple[list[int], Buckets]:
    """Nanoseconds of the way of each letter after the warm-up; and the worker's histogram as it stood then."""
    options = {
        "bootstrap.servers": bench.servers, "group.id": "publish", "isolation.level": "read_committed",
        "enable.auto.commit": False,
    }  # fmt: skip
    consumer = Consumer(options)
    consumer.assign([TopicPartition(letters, number, 0) for number in range(PARTITIONS)])
    producing = threading.Thread(target=_produce, args=(bench.servers, topic, seconds), daemon=True)
    producing.start()
    began, read, taken, before = time.monotonic(), 0, list[int](), Buckets()
    counted_from = time.time_ns() + int(_WARM_UP * 1e9)
    try:
        with bar(f"{seconds} s at {_RATE} dead letters/s", seconds) as progress:
            while read < seconds * _RATE:
                for message in consumer.consume(1000, 0.01):
                    if message.error() is None:
                        read, sent, now = read + 1, int(message.key() or b"0"), time.time_ns()
                        taken += [now - sent] if sent >= counted_from else []
                if not before and time.time_ns() >= counted_from:
                    before = _buckets(worker)
                progress(min(seconds, int(time.monotonic() - began)))
                if time.monotonic() - began > seconds + _PATIENCE:
                    raise TimeoutError(f"{read} of {seconds * _RATE} records are dead letters:\n{worker.tail()}")
    finally:
        consumer.close()
        producing.join(_PATIENCE)
    return taken, before


def _produce(servers: str, topic: str, seconds: int) -> None:
    """So many records a second, in small rounds. The key is when each was produced (ns)."""
    producer, began, produced = Producer({"bootstrap.servers": servers, "linger.ms": 1}), time.monotonic(), 0
    while produced < seconds * _RATE:
        for _ in range(min(int((time.monotonic() - began) * _RATE), seconds * _RATE) - produced):
            now = time.time_ns()
            value = (
                f'{{"id":1,"user_id":"u","amount":-1,"currency":"EUR","event_time":{now // 1_000_000},"status":"paid"}}'
            )
            producer.produce(topic, value.encode(), str(now).encode(), produced % PARTITIONS)
            produced += 1
        producer.poll(_TICK)
    producer.flush(_PATIENCE)


def _buckets(worker: Worker) -> Buckets:
    """Upper bound (s) → how many transactions took no longer."""
    ours = {series: count for series, count in worker.metrics().items() if 'sink="kafka"' in series}
    return {float(found[1]): count for series, count in ours.items() if (found := _BUCKET.match(series))}


def _quantile(cumulative: Buckets, share: float) -> float:
    """The bound of the bucket in which this share is reached, in seconds."""
    if not cumulative[float("inf")]:
        raise ValueError("the worker has published nothing after the warm-up")
    wanted = cumulative[float("inf")] * share
    return min(bound for bound, count in cumulative.items() if count >= wanted)
