"""Dead letters per second from their topic into PostgreSQL, by the agent; and how long a search and a page then take."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
from confluent_kafka import Producer

from benchmarks.process import Worker, running, total
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench
from dlq.index.filters import FieldIs, LetterFilter
from dlq.index.search import IndexReader
from dlq.kind import Kinds
from dlq.letter import Letter, RawRecord
from dlq.service import open_index
from dlq.writing import LetterWriter
from tidegate.config.loading import load_pipeline
from tidegate.config.queue import DeadLetterConfig
from tidegate.local.postgres import EmbeddedPostgres
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import Reason, Rejection

_RATE, _PAGE_MS, _START_S = 20_000, 200, 1.5
_KINDS = 40  # of failures
_START = 1_700_000_000_000
_LOOKS = 7
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letters(number: int) -> Iterator[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]], int]]:
    """Flights that failed in forty ways, a hundred a second: key, value, headers, timestamp (ms)."""
    rng, config = random.Random(1), DeadLetterConfig()
    for offset in range(number):
        kind, at = rng.randrange(_KINDS), _START + offset * 10
        rule = None if kind < 30 else f"rule_{kind}"
        field = f"field_{_LETTERS[kind]}"
        message = f"{field}: expected bigint, found '{rng.randrange(1_000_000)}' at gate {_LETTERS[kind] * 3}"
        reason = Reason("WrongType" if rule is None else "RuleViolation", message, rule=rule, field=field, found="x")
        value = {
            "year": 2013, "month": rng.randrange(12), "day": rng.randrange(28), "dep_time": rng.randrange(2400),
            "carrier": rng.choice(["UA", "AA", "B6", "DL"]), "flight": rng.randrange(6000),
            "tailnum": f"N{rng.randrange(4000)}", "origin": rng.choice(["EWR", "JFK", "LGA"]),
            "dest": rng.choice(["IAH", "MIA", "BQN", "ATL"]), "distance": rng.randrange(3000),
        }  # fmt: skip
        record = RawRecord(
            TopicPartition("flights", offset % 4),
            offset,
            at,
            str(value["tailnum"]).encode(),
            json.dumps(value).encode(),
        )
        stage = Stage.DECODE if rule is None else Stage.VALIDATE
        rejection = Rejection(offset, stage, (reason,))
        kinds = Kinds(pipeline="flights", schema="flights@1", now_ms=at)
        yield (*LetterWriter(config).record(Letter.of(rejection, record, kinds)), at)


SEARCHES: dict[str, Callable[[IndexReader], object]] = {
    "groups by impact": lambda reader: reader.groups(),
    "one group": lambda reader: reader.group(reader.groups(limit=1)[0]["fingerprint"]),
    "newest page": lambda reader: reader.page(LetterFilter()),
    "a group's page": lambda reader: reader.page(LetterFilter(group=(reader.groups(limit=1)[0]["fingerprint"],))),
    "rule": lambda reader: reader.page(LetterFilter(rule=("rule_33",))),
    "word in all messages": lambda reader: reader.page(LetterFilter(text="expected")),
    "words in one of 40": lambda reader: reader.page(LetterFilter(text="gate HHH")),
    "a value in one message": lambda reader: reader.page(LetterFilter(text="4242")),
    "field of 1 in 4": lambda reader: reader.page(LetterFilter(field=(FieldIs.parse("carrier=UA"),))),
    "field of 1 in 4 000": lambda reader: reader.page(LetterFilter(field=(FieldIs.parse("tailnum=N77"),))),
    "field of none": lambda reader: reader.page(LetterFilter(field=(FieldIs.parse("carrier=ZZ"),))),
    "state of none": lambda reader: reader.page(LetterFilter(state=("resolved",))),
    "how many with a word": lambda reader: reader.count(LetterFilter(text="expected")),
    "how many with a value": lambda reader: reader.count(LetterFilter(text="4242")),
    "key": lambda reader: reader.page(LetterFilter(key=("N77",))),
    "totals": lambda reader: reader.stats(),
}

PAGES = {
    "overview": "/",
    "groups": "/groups",
    "one group": "/group?group={group}",
    "newest": "/search",
    "open ones": "/search?state=open",
    "rule": "/search?rule=rule_35",
    "word in all messages": "/search?text=expected",
    "words in one of 40": "/search?text=field_Z+expected",
    "a value in one message": "/search?text=4242",
    "field of 1 in 4": "/search?field=carrier%3DUA",
    "field of 1 in 4 000": "/search?field=tailnum%3DN77",
    "one record": "/record?id=flights-1-4241",
    "replay, before the preview": "/replay?group={group}",
}
"""Page → its URL."""


def run(bench: Bench) -> Section:
    """Fill the topic, index it, look at the index."""
    topic = bench.topic("bench.dlq", {"retention.ms": "-1"})
    fill(bench, topic, bench.records)
    section = Section("index", "Dead letters into the index, and found again")
    with postgres(bench.directory / "postgres") as url:
        worker = Worker(_pipeline(bench, topic, url), bench.directory, app="dlq.app")
        with running(worker):
            rate, cpu = _index(worker, bench.records)
        file = bench.directory / f"{worker.pipeline['pipelineId']}.yaml"
        with open_index(load_pipeline(file)) as index:
            _vacuum(url)
            times = {name: median(lambda s=search: s(index.reader)) for name, search in SEARCHES.items()}  # type: ignore[misc]  # a lambda's default argument has no type
            group = index.reader.groups(limit=1)[0]["fingerprint"]
        start, pages = console_pages(file, group)
    number = thousands(bench.records)
    section.text(
        f"{number} dead letters of our own (ten fields, 40 kinds of failure, a new value in every message), four "
        "partitions, into PostgreSQL with all indexes there, from the agent's readiness to the last letter; then, vacuumed "
        "as autovacuum does, pages of 50, median of 7 looks."
    )
    section.table(["letters/s", "CPU µs/letter of the agent"], [[thousands(rate), f"{cpu:.1f}"]])
    section.table(["search", "ms"], [[name, f"{ms:.0f}"] for name, ms in times.items()])
    section.text("The console's pages over HTTP, written out whole (`tidegate dlq console`), median of 7 looks.")
    section.table(["page", "ms"], [[name, f"{ms:.0f}"] for name, ms in pages.items()])
    section.target(f"≥ {thousands(_RATE)} letters/s", f"{thousands(rate)} letters/s", rate >= _RATE)
    for what, found in (("search", times), ("page of the console", pages)):
        slowest = max(found, key=lambda name: found[name])
        wanted = f"every {what} < {_PAGE_MS} ms at {number} letters"
        section.target(wanted, f"slowest: {slowest}, {found[slowest]:.0f} ms", found[slowest] < _PAGE_MS)
    section.target(f"console answers < {_START_S} s after its start", f"{start:.2f} s", start < _START_S)
    return section


def fill(bench: Bench, topic: str, number: int) -> None:
    """Write so many letters to the topic's four partitions."""
    print(f"  writing {number} dead letters", flush=True)
    options = {"bootstrap.servers": bench.servers, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000}
    producer = Producer(options)
    for count, (key, value, headers, at) in enumerate(letters(number)):
        producer.produce(topic, value, key, count % 4, headers=list(headers), timestamp=at)
        if count % 1000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0


def _pipeline(bench: Bench, topic: str, url: str) -> dict[str, object]:
    queue = {"type": "kafka", "config": {"topic": topic}}
    return {
        "pipelineId": "bench-dlq",
        "kafka": {"bootstrapServers": bench.servers},
        "errorHandling": {"deadLetterQueue": queue},
        "deadLetters": {"index": url},
    }


def _index(worker: Worker, number: int) -> tuple[float, float]:
    """Letters per second, and processor microseconds per letter, from readiness to the last letter."""
    worker.wait_ready()
    began, cpu = time.monotonic(), worker.cpu
    before = total(worker.metrics(), "tidegate_dlq_indexed_records_total")
    while (done := total(worker.metrics(), "tidegate_dlq_indexed_records_total")) < number:
        worker.require_running()
        time.sleep(0.1)
    seconds = time.monotonic() - began
    return (done - before) / seconds, (worker.cpu - cpu) / (done - before) * 1e6


def median(look: Callable[[], object]) -> float:
    """Milliseconds."""
    times = []
    for _ in range(_LOOKS):
        began = time.perf_counter()
        look()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def console_pages(file: Path, group: str) -> tuple[float, dict[str, float]]:
    """Seconds from the command to its first answer (best of three), and milliseconds of each page."""
    starts: list[float] = []
    for _ in range(2):
        with _console(file, starts):
            pass
    with _console(file, starts) as url:
        paths = {name: path.format(group=group) for name, path in PAGES.items()}
        return min(starts), {name: median(partial(_get, url + path)) for name, path in paths.items()}


@contextmanager
def _console(file: Path, starts: list[float]) -> Iterator[str]:
    """The URL of a console that answers; how many seconds that took is added to `starts`."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "tidegate.cli.main", "dlq", "console", str(file), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as console:
        assert console.stdout is not None
        try:
            url = console.stdout.readline().split()[-1]
            _get(f"{url}/static/app.css")
            starts.append(time.perf_counter() - began)
            yield url
        finally:
            console.terminate()


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        read: bytes = answer.read()
    return read


def _vacuum(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """The URL of a server of the benchmark's own."""
    server = EmbeddedPostgres(directory)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
