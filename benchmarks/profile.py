"""Where a record's time goes: the worker's own parts, one after the other in one thread, each with a stopwatch."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.consumer import fetcher

from benchmarks.events import PARTITIONS
from benchmarks.process import job
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench
from benchmarks.throughput import measure
from tidegate.calls import Calls
from tidegate.clock import SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import changelog_topic, watermarks_topic
from tidegate.record import TopicPartition
from tidegate.stages.aggregate import Aggregator, Merger
from tidegate.stages.batch import RawBatch
from tidegate.stages.decode import Decoder
from tidegate.stages.dedupe import Dedupe
from tidegate.stages.eventtime import EventTimes
from tidegate.stages.handle import HandlerChain
from tidegate.stages.plan import compile_plan
from tidegate.stages.rules import RuleSet
from transport.records import UnpackedRecords
from worker import source, windows
from worker.commit import commit
from worker.producer import PartitionProducer
from worker.rowcodec import RowCodec
from worker.source import SourceStages
from worker.statedb import PartitionDB
from worker.windows import WindowTable

_KEYS = 10_000
_RECORDS = 400_000  # at most: the figures do not change with more
_BATCH = 12_288  # records: what a fetch of 2 MiB per partition brings
_OPTIONS = {"enable_auto_commit": False, "isolation_level": "read_committed", "max_partition_fetch_bytes": 2_097_152}

# What is timed, from the inside out: time inside another one of these counts for the inner one only.
_PARTS: tuple[tuple[Any, str, str], ...] = (
    (Decoder, "decode", "decode: JSON to columns"),
    (RuleSet, "check", "rules"),
    (EventTimes, "stamp", "event time"),
    (EventTimes, "judge", "event time"),
    (Dedupe, "split", "dedupe (none here)"),
    (Aggregator, "apply", "aggregate: partials per window and user"),
    (source, "dead_letters", "dead letters (none here)"),
    (windows, "encode_keys", "row codec: keys"),
    (RowCodec, "encode", "row codec: rows to bytes"),
    (RowCodec, "decode", "row codec: bytes to rows"),
    (Merger, "merge", "window merge: DuckDB"),
    (WindowTable, "_merge", "window merge: around it"),
    (WindowTable, "apply", "window merge: around it"),
    (PartitionDB, "get", "RocksDB: read"),
    (PartitionDB, "scan", "RocksDB: read"),
    (PartitionDB, "write", "RocksDB: write"),
    (SourceStages, "batch", "the rest of a batch"),
)


class Stopwatches:
    """Seconds per label: wall clock, and the processor's as this thread used it. Nested: each second counts once."""

    def __init__(self) -> None:
        self.wall: defaultdict[str, float] = defaultdict(float)
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._last = (time.perf_counter(), time.thread_time())

    @contextmanager
    def running(self, label: str) -> Iterator[None]:
        self._turn()
        self._open.append(label)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        """What passed since the last turn was the innermost part's."""
        now = (time.perf_counter(), time.thread_time())
        if self._open:
            self.wall[self._open[-1]] += now[0] - self._last[0]
            self.cpu[self._open[-1]] += now[1] - self._last[1]
        self._last = now

    @contextmanager
    def around(self, parts: tuple[tuple[Any, str, str], ...]) -> Iterator[None]:
        """Time these functions until the end of the block."""
        originals = [(owner, name, getattr(owner, name)) for owner, name, _ in parts]
        for owner, name, label in parts:
            setattr(owner, name, self._timed(getattr(owner, name), label))
        try:
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def _timed(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.running(label):
                return function(*args, **kwargs)

        return timed


def run(bench: Bench) -> Section:
    number = min(bench.records, _RECORDS)
    topic = bench.events(_KEYS, number)
    watches = Stopwatches()
    plain, _ = asyncio.run(_fetch(bench, topic, number))
    with _unpacked():
        unpacked, records = asyncio.run(_fetch(bench, topic, number))
    pipeline = Pipeline.model_validate(job(bench, topic))
    with watches.around(_PARTS):
        asyncio.run(_work(bench, pipeline, records, watches))
    whole = measure(bench, topic, number)
    per = 1e6 / number
    rows = [["fetch: aiokafka without an object per record", f"{unpacked[0] * per:.2f}", f"{unpacked[1] * per:.2f}"]]
    rows += [[name, f"{watches.wall[name] * per:.2f}", f"{watches.cpu[name] * per:.2f}"] for name in watches.wall]
    parts = (unpacked[1] + sum(watches.cpu.values())) * per
    section = Section("profile", "Where the time goes")
    section.text(
        f"{thousands(number)} records of {thousands(_KEYS)} users in batches of {thousands(_BATCH)}: the worker's own code in "
        "one thread, one partition after the other, with a real broker and RocksDB; µs per record. Wall clock has the wait for "
        "the broker in it, which the worker spends on other partitions."
    )
    section.table(["part", "µs/record", "CPU µs/record"], rows)
    section.table(
        ["", "CPU µs/record"],
        [
            ["all of these", f"{parts:.2f}"],
            ["the worker's process from outside: with Faust, event loops, metrics, all threads", f"{whole.cpu:.2f}"],
            ["limit: aiokafka getmany alone", f"{plain[1] * per:.2f}"],
        ],
    )
    return section


async def _fetch(bench: Bench, topic: str, number: int) -> tuple[tuple[float, float], dict[int, list[Any]]]:
    """Read the topic: (seconds, processor seconds), and the records per partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bench.servers, **_OPTIONS)
    await consumer.start()
    try:
        partitions = [KafkaTopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        records: dict[int, list[Any]] = {partition: [] for partition in range(PARTITIONS)}
        began, cpu = time.perf_counter(), time.thread_time()
        while sum(map(len, records.values())) < number:
            for tp, found in (await consumer.getmany(timeout_ms=1000, max_records=32_768)).items():
                records[tp.partition] += found
        return (time.perf_counter() - began, time.thread_time() - cpu), records
    finally:
        await consumer.stop()


@contextmanager
def _unpacked() -> Iterator[None]:
    """aiokafka's consumers give records as the worker's do."""
    original, fetcher.PartitionRecords = fetcher.PartitionRecords, UnpackedRecords
    try:
        yield
    finally:
        fetcher.PartitionRecords = original


async def _work(bench: Bench, pipeline: Pipeline, records: dict[int, list[Any]], watches: Stopwatches) -> None:
    """What SourcePartition does with its batches, without threads."""
    plan, name = compile_plan(pipeline), pipeline.pipeline_id
    assert pipeline.source is not None
    (topic,) = pipeline.source.topics
    log = changelog_topic(name, topic)
    bench.topic(log)
    bench.topic(watermarks_topic(pipeline))
    inline, handlers = Calls(_Inline()), HandlerChain(pipeline, plan.decoded)
    for partition, found in records.items():
        tp = TopicPartition(topic, partition)
        producer = PartitionProducer({"bootstrap_servers": bench.servers}, f"profile/{name}/{partition}")
        await producer.start()
        db = PartitionDB(bench.directory / f"{name}-profile" / str(partition))
        stages = SourceStages(plan, tp, db, {}, SystemClock(), handlers)
        state, closed = stages.load()
        for at in range(0, len(found), _BATCH):
            with watches.running("records to Arrow"):
                raw = RawBatch.of_records(tp, found[at : at + _BATCH])
            step = stages.batch(raw, state, closed, None)
            with watches.running("transaction: changelog to Kafka"):
                await commit(step.effects, changelog=(log, partition), producer=producer, db=db, in_thread=inline)
            state, closed = step.state, step.closed_upto
        await producer.stop()
        db.close()


class _Inline(Executor):
    """Runs what it is given at once, in the caller's thread, whose stopwatch is running."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future
