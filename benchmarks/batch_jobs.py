"""The batch benchmarks' database, their topics and their job."""

from __future__ import annotations

import uuid
from types import TracebackType
from typing import Any

from benchmarks.events import Answer, answer, events
from benchmarks.process import job
from benchmarks.stack import Bench
from tidegate.local.postgres import EmbeddedPostgres

UNIQUE = "almost unique keys"
KEYS = {"1000": "1 000 keys", "10000": "10 000 keys", "unique": UNIQUE}
"""The topics: as an option has them, and as they are shown."""


class Servers:
    """A database beside the benchmark's broker."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._postgres = EmbeddedPostgres(bench.directory / f"postgres-{uuid.uuid4().hex[:8]}")

    def __enter__(self) -> Servers:
        self._postgres.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._postgres.stop()

    @property
    def url(self) -> str:
        return self._postgres.url

    def keys(self, records: int) -> dict[str, int]:
        """How many users there are in each of the topics of so many records, of those that are wanted."""
        users = {"1000": 1_000, "10000": 10_000, "unique": records * 9 // 10}
        return {shown: users[name] for name, shown in KEYS.items() if self.bench.wants("keys", name)}

    def topic(self, keys: int, records: int) -> str:
        return self.bench.events(keys, records, **_options(keys, records))

    def truth(self, keys: int, records: int) -> Answer:
        return answer(events(records, keys, **_options(keys, records)))


def _options(keys: int, records: int) -> dict[str, Any]:
    return {"in_turn": True} if keys > records // 2 else {}


def pipeline_of(bench: Bench, servers: Servers, topic: str, table: str | None = None) -> dict[str, Any]:
    """The windowed job with its results in PostgreSQL."""
    name = table or f"t_{uuid.uuid4().hex[:8]}"
    return job(bench, topic, sinks=[{"type": "postgres", "url": servers.url, "tables": {"per_user": name}}])
