"""One broker of the benchmarks' own, and its topics."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.events import PARTITIONS, events, fill
from benchmarks.progress import bar
from tidegate.local.kafka import EmbeddedKafka

_JVM = ("-Xmx1g",)  # both compilers, as in production; the tests' broker has the quick one only


@dataclass
class Bench:
    """Where a benchmark runs: broker, scratch directory, how much of everything. `only`: what is wanted of that which an
    option names; all of it where it is not in there."""

    servers: str
    directory: Path
    records: int
    quick: bool = False
    only: Mapping[str, Collection[str]] = field(default_factory=dict)
    topics: dict[str, int] = field(default_factory=dict)

    def wants(self, option: str, name: str) -> bool:
        return name in self.only.get(option, (name,))

    def topic(self, name: str, config: Mapping[str, str] | None = None) -> str:
        """A topic of four partitions; made when it is not there."""
        if name not in self.topics:
            topic = NewTopic(name, PARTITIONS, 1, config=dict(config or {}))
            admin = AdminClient({"bootstrap.servers": self.servers})  # must outlive its futures
            for future in admin.create_topics([topic]).values():
                future.result()
            self.topics[name] = 0
        return name

    def events(self, keys: int, records: int, **options: Any) -> str:
        """A topic with these records (`options`: of `benchmarks.events.events`); filled when it is not yet."""
        name = "-".join(["events", str(keys), str(records), *(f"{k}{v}" for k, v in sorted(options.items()))])
        if not self.topics.get(name):
            self.topic(name, {"retention.ms": "-1"})  # the records are years old
            with bar(f"writing {records} records, {keys} keys", records) as progress:
                self.topics[name] = fill(self.servers, name, events(records, keys, **options), progress)
        return name


@contextlib.contextmanager
def bench(records: int, quick: bool, only: Mapping[str, Collection[str]]) -> Iterator[Bench]:
    """Start the broker; whatever happens, nothing of it is left."""
    directory = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    kafka = EmbeddedKafka(directory / "kafka", jvm_flags=_JVM, remove=directory)
    try:
        kafka.start()
        yield Bench(kafka.bootstrap_servers, directory, records, quick, only)
    finally:
        kafka.stop()
        shutil.rmtree(directory, ignore_errors=True)
