"""Replay: how long the preview of a hundred thousand dead letters takes, and how many a second go back."""

from __future__ import annotations

import time
from typing import NamedTuple

from confluent_kafka import Consumer, TopicPartition

from benchmarks.dlq_index import fill, letters, postgres
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench
from dlq.index.database import IndexDatabase
from dlq.index.filters import LetterFilter
from dlq.index.letters import index_row
from dlq.index.masking import Masker
from dlq.index.writer import IndexWriter
from dlq.replay.agent import owner_name
from dlq.replay.request import Request
from dlq.replay.run import Run
from dlq.service import DeadLetterIndex, open_index
from tidegate import record as names
from tidegate.config.pipeline import Pipeline
from tidegate.garbage import collect_rarely
from tidegate.headers import Headers

_LETTERS, _PREVIEW_SECONDS, _RATE = 100_000, 15, 10_000
_BATCH = 10_000
_TEXTS = ("carrier", "tailnum", "origin", "dest")
_NUMBERS = ("year", "month", "day", "dep_time", "flight", "distance")


class _Record(NamedTuple):
    """As the transport delivers it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def run(bench: Bench) -> Section:
    """Fill the topic and the index, preview, replay."""
    collect_rarely()  # as the commands do, and the agent
    topic, source = bench.topic("replay.dlq", {"retention.ms": "-1"}), bench.topic("flights")
    fill(bench, topic, _LETTERS)
    section = Section("replay", "Dead letters previewed and replayed")
    with postgres(bench.directory / "postgres-replay") as url:
        pipeline = _pipeline(bench, topic, source, url)
        _index(pipeline, topic, url)
        with open_index(pipeline) as opened:
            began, cpu = time.monotonic(), time.process_time()
            found = opened.preview(Request(LetterFilter()))
            preview, preview_cpu = time.monotonic() - began, time.process_time() - cpu
            mending = Request(LetterFilter(), assignments=("value.distance = least(distance, 2000)",))
            began = time.monotonic()
            opened.preview(mending)
            mended = time.monotonic() - began
            cpu = time.process_time()
            rate = _replay(opened, bench.servers, source)
            replay_cpu = time.process_time() - cpu
    number = thousands(_LETTERS)
    section.text(
        f"{number} dead letters (ten fields, four partitions) in PostgreSQL. The preview reads their raw records and takes them "
        f"through the stages: {thousands(found.passing)} would pass. The replay sends all of them in one job, without canary "
        "and rate, each chunk in one transaction, the job's row in PostgreSQL written after each; until the last is sent."
    )
    costs = [f"{seconds / _LETTERS * 1e6:.0f}" for seconds in (preview_cpu, replay_cpu)]
    rows = [[f"{preview:.1f}", f"{mended:.1f}", thousands(rate), *costs]]
    heads = ["preview, s", "preview with --set, s", "replayed/s", "CPU µs/letter of the preview", "of the replay"]
    section.table(heads, rows)
    section.target(f"preview of {number} < {_PREVIEW_SECONDS} s", f"{preview:.1f} s", preview < _PREVIEW_SECONDS)
    section.target(f"≥ {thousands(_RATE)} replays/s", f"{thousands(rate)} replays/s", rate >= _RATE)
    return section


def _pipeline(bench: Bench, topic: str, source: str, url: str) -> Pipeline:
    columns = [{"name": n, "type": "string"} for n in _TEXTS] + [{"name": n, "type": "bigint"} for n in _NUMBERS]
    return Pipeline.model_validate(
        {
            "pipelineId": "bench-replay",
            "kafka": {"bootstrapServers": bench.servers},
            "source": {"topics": [source]},
            "schema": columns,
            "rules": [
                {"type": "range", "column": "distance", "min": 0, "max": 2000},
                {"type": "notNull", "column": "carrier"},
                {"type": "expect", "expression": "origin <> dest"},
            ],
            "errorHandling": {"deadLetterQueue": {"type": "kafka", "config": {"topic": topic}}},
            "deadLetters": {"index": url},
        }
    )


def _index(pipeline: Pipeline, topic: str, url: str) -> None:
    """As the agent does, from the same letters: number n is in partition n % 4, at offset n // 4."""
    database, masker = IndexDatabase(url, pipeline.dead_letters), Masker(())
    database.prepare()
    writer = IndexWriter(database)
    batches: list[list[_Record]] = [[], [], [], []]
    for number, (key, value, headers, at) in enumerate(letters(_LETTERS)):
        batches[number % 4].append(_Record(number // 4, at, key, value, headers))
        if len(batches[number % 4]) == _BATCH or number >= _LETTERS - 4:
            tp, part = names.TopicPartition(topic, number % 4), batches[number % 4]
            writer.write(tp, [index_row(record, tp, masker) for record in part], part[-1].offset)
            batches[number % 4] = []
    database.close()


def _replay(opened: DeadLetterIndex, servers: str, source: str) -> float:
    """Records per second from the job's first turn to its last transaction; all of them have to be there."""
    job = opened.jobs.create(Request(LetterFilter(), canary=False), actor="bench", owner=owner_name())
    work = Run(opened.pipeline, opened.jobs, job)
    began = time.monotonic()
    while work.job.sent < job.total:
        work.turn()
    seconds = time.monotonic() - began
    work.close()
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench-count"})
    ends = [consumer.get_watermark_offsets(TopicPartition(source, p), 10)[1] for p in range(4)]
    consumer.close()
    assert sum(ends) >= job.total, ends
    return job.total / seconds
