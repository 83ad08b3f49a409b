"""From producing a record to reading the result that has it in, at a steady rate: every record is followed."""

from __future__ import annotations

import random
import threading
import time
import uuid
import zlib
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.events import PARTITIONS
from benchmarks.process import Worker, job, running
from benchmarks.progress import bar
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench

_RATE, _KEYS = 5_000, 10_000  # records per second, users
_P99_MS = 250
_WARM_UP = 5.0  # seconds that are not counted: the first windows, imports, first transactions
_SECONDS, _QUICK_SECONDS = 75, 20  # the long form has the end of a minute in it, where every user's window closes
_TICK = 0.005  # seconds between two rounds of the producer
_PATIENCE = 20.0  # seconds for the last results


class _Group(msgspec.Struct):
    user: str


class _Values(msgspec.Struct):
    newest: int


class _Result(msgspec.Struct):
    group: _Group
    values: _Values


@dataclass
class Flight:
    """What is on its way. `sent`: user → when its records were produced (ns), oldest first. Appended to by the producer's
    thread, taken from by the consumer's."""

    sent: defaultdict[str, deque[int]] = field(default_factory=lambda: defaultdict(deque))
    produced: int = 0
    arrived: int = 0
    taken: list[int] = field(default_factory=list)  # ns, of each record that was produced after the warm-up


def run(bench: Bench) -> Section:
    seconds = _QUICK_SECONDS if bench.quick else _SECONDS
    topic = bench.topic("latency", {"retention.ms": "-1"})
    worker = Worker(_job(bench, topic), bench.directory)
    with running(worker):
        worker.wait_ready()
        flight, busy = _fly(bench, worker, topic, seconds)
    ms = np.array(flight.taken) / 1e6
    p50, p90, p99, p999 = np.percentile(ms, [50, 90, 99, 99.9])
    section = Section("latency", "From a record to its result")
    section.text(
        f"{thousands(_RATE)} records/s of {thousands(_KEYS)} users for {seconds} s, four partitions; the job of the throughput "
        "with `emit: updates` to a topic. Each record carries the time of its producing; counted until a consumer with "
        "`read_committed` has the first result that includes it, so producer, worker, transaction and consumer are all in "
        f"it. {thousands(len(ms))} records, none left out but those of the first {_WARM_UP:.0f} s."
    )
    section.table(
        ["p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "a core's share for the worker"],
        [[f"{p50:.0f}", f"{p90:.0f}", f"{p99:.0f}", f"{p999:.0f}", f"{ms.max():.0f}", f"{busy:.0%}"]],
    )
    section.target(f"p99 ≤ {_P99_MS} ms", f"{p99:.0f} ms", p99 <= _P99_MS)
    return section


def _job(bench: Bench, topic: str) -> dict[str, Any]:
    pipeline = job(bench, topic, sinks=[{"type": "kafka"}])
    pipeline["schema"].append({"name": "sent", "type": "bigint"})
    (aggregation,) = pipeline["aggregations"]
    aggregation["measures"]["newest"] = {"type": "max", "of": "sent"}
    aggregation["emit"] = "updates"
    return pipeline


def _fly(bench: Bench, worker: Worker, topic: str, seconds: int) -> tuple[Flight, float]:
    """The flight, and the worker's processor seconds per second while it lasted."""
    flight, began, cpu = Flight(), time.monotonic(), worker.cpu
    counted_from = time.time_ns() + int(_WARM_UP * 1e9)
    over = threading.Event()
    producing = threading.Thread(target=_produce, args=(bench.servers, topic, seconds, flight, over), daemon=True)
    consumer = _consumer(bench.servers, f"{worker.pipeline['pipelineId']}.per_user")
    producing.start()
    busy, deadline = 0.0, began + seconds + _PATIENCE
    try:
        with bar(f"{seconds} s at {_RATE} records/s", seconds) as progress:
            while not over.is_set() or flight.arrived < flight.produced:
                _land(consumer.consume(1000, 0.01), flight, counted_from)
                now = time.monotonic()
                progress(min(seconds, int(now - began)))
                if not over.is_set():
                    busy = (worker.cpu - cpu) / (now - began)
                if now > deadline:
                    missing = flight.produced - flight.arrived
                    raise TimeoutError(f"{missing} records are in no result after {_PATIENCE:.0f} s:\n{worker.tail()}")
    finally:
        consumer.close()
        producing.join(_PATIENCE)
    return flight, busy


def _consumer(servers: str, topic: str) -> Consumer:
    options = {
        "bootstrap.servers": servers,
        "group.id": f"latency-{uuid.uuid4().hex[:8]}",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(options)
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    return consumer


def _land(messages: list[Any], flight: Flight, counted_from: int) -> None:
    """Records that these results include: of a user, all that were produced up to the newest one in it."""
    now, decode = time.time_ns(), _DECODER.decode
    for message in messages:
        if message.error() is not None:
            continue
        result = decode(message.value())
        waiting, newest = flight.sent[result.group.user], result.values.newest
        while waiting and waiting[0] <= newest:
            produced = waiting.popleft()
            flight.arrived += 1
            if produced >= counted_from:
                flight.taken.append(now - produced)


def _produce(servers: str, topic: str, seconds: int, flight: Flight, over: threading.Event) -> None:
    """So many records a second, in small rounds, for so long. A round that comes too late sends what was due."""
    producer, rng = Producer({"bootstrap.servers": servers, "linger.ms": 1}), random.Random(1)
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        for _ in range(int(elapsed * _RATE) - flight.produced):
            user, now = f"u{rng.randrange(_KEYS)}", time.time_ns()
            value = (
                f'{{"id":{flight.produced},"user_id":"{user}","amount":{rng.random() * 100:.2f},"currency":"EUR",'
                f'"event_time":{now // 1_000_000},"status":"paid","sent":{now}}}'
            )
            flight.sent[user].append(now)
            flight.produced += 1
            producer.produce(topic, value.encode(), user, zlib.crc32(user.encode()) % PARTITIONS)
        producer.poll(_TICK)
    producer.flush(_PATIENCE)
    over.set()


_DECODER = msgspec.json.Decoder(_Result)
