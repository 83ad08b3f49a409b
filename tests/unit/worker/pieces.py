"""A small pipeline for the worker's parts, its records, and a partition's state that takes steps as a commit would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.reference import Record
from tests.reference import raw_batch as _raw_batch
from tidegate.clock import Clock, ManualClock
from tidegate.config.pipeline import Pipeline
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState, RawBatch
from tidegate.stages.handle import HandlerChain
from tidegate.stages.plan import Plan, compile_plan
from worker.effects import Effects
from worker.source import SourceStages, Step
from worker.statedb import PartitionDB
from worker.windows import BEGINNING

TP = TopicPartition("flights", 0)
SIZE = 10_000
COUNTS = {"p..partials": 3, "p.dlq": 1, "p.late": 1}


def plan_of(*, emit: str = "updates", group: Sequence[str] = ("k",), **settings: Any) -> Plan:
    """Windows of 10 s, delay 1 s, no lateness allowed, totals kept for 20 s; `k` is the record's key."""
    document = {
        "pipelineId": "p",
        "source": {"topics": ["flights"], "key": {"column": "k"}},
        "schema": [
            {"name": "id", "type": "string"},
            {"name": "colour", "type": "string"},
            {"name": "amount", "type": "bigint"},
            {"name": "seen", "type": "timestamp", "unit": "ms"},
        ],
        "eventTime": {"column": "seen", "delay": "1 second", "retention": "20 seconds"},
        "aggregations": [
            {
                "name": "totals",
                "window": {"size": f"{SIZE} ms"},
                "groupBy": list(group),
                "measures": {"n": "count", "total": {"type": "sum", "of": "amount"}},
                "emit": emit,
            }
        ],
        "sinks": [{"type": "kafka"}],
        **settings,
    }
    return compile_plan(Pipeline.model_validate(document))


@cache
def small_plan() -> Plan:
    """`plan_of()`, compiled once: that takes longer than a test."""
    return plan_of()


def record(offset: int, seen: int, key: str = "a", *, replay: bool = False, **fields: Any) -> Record:
    value = json.dumps({"amount": 1, **fields, "seen": seen}).encode()
    headers = (("tidegate.replay.of", b"flights-0-1-sink"),) if replay else ()
    return Record(offset, seen, value, headers, key.encode())


def raw(*records: Record) -> RawBatch:
    return _raw_batch(TP, records)


@dataclass
class Partition:
    """A source partition over a real local state. `sent`: topic → (key, value) in the order of the log. `counts`: how many
    partitions topics have."""

    plan: Plan
    path: Path
    tp: TopicPartition = TP
    sent: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)
    sent_to: list[tuple[str, int, Any, Any]] = field(default_factory=list)
    changelog: int = 0
    handlers: HandlerChain | None = None
    clock: Clock = field(default_factory=ManualClock)
    counts: dict[str, int] = field(default_factory=lambda: dict(COUNTS))

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Start over the state that is there, as a new owner does."""
        self.db = PartitionDB(self.path)
        handlers = self.handlers or HandlerChain(self.plan.pipeline, self.plan.decoded)
        self.stages = SourceStages(self.plan, self.tp, self.db, dict(self.counts), self.clock, handlers)
        self.state, self.closed_upto = self.stages.load()

    def restart(self) -> None:
        self.db.close()
        self.open()

    def take(self, *records: Record) -> Step:
        """One batch, committed."""
        step = self.stages.batch(_raw_batch(self.tp, records), self.state, self.closed_upto, None)
        self.apply(step)
        return step

    def close_upto(self, bound: int) -> Step:
        step = self.stages.closing(self.state, self.closed_upto, bound)
        self.apply(step)
        return step

    def apply(self, step: Step) -> None:
        self.write(step.effects)
        self.state, self.closed_upto = step.state, step.closed_upto

    def write(self, effects: Effects) -> None:
        self.changelog += 1
        effects.apply(self.db, self.changelog)
        for rows in effects.topics:
            for key, value, _, _ in rows:
                self.sent.setdefault(rows.topic, []).append((key, value))
                self.sent_to.append((rows.topic, rows.partition, key, value))

    def results(self, name: str = "totals") -> list[dict[str, Any]]:
        return [json.loads(value) for _, value in self.sent.get(f"p.{name}", [])]

    def newest(self, name: str = "totals") -> dict[str, dict[str, Any]]:
        """Key → the result with the largest revision."""
        found: dict[str, dict[str, Any]] = {}
        for key, value in self.sent.get(f"p.{name}", []):
            row = json.loads(value)
            if found.get(key.decode(), row)["revision"] <= row["revision"]:
                found[key.decode()] = row
        return found


async def same_topics(_: Any, topics: Sequence[str]) -> dict[str, str]:
    """For `topic_ids`, where there is no broker: every topic is the one that it was."""
    return dict.fromkeys(topics, "the same")


@contextmanager
def partition(plan: Plan, path: Path, tp: TopicPartition = TP, clock: Clock | None = None) -> Iterator[Partition]:
    made = Partition(plan, path, tp, clock=clock or ManualClock())
    try:
        yield made
    finally:
        made.db.close()


__all__ = [
    "BEGINNING",
    "COUNTS",
    "SIZE",
    "TP",
    "Partition",
    "PartitionState",
    "partition",
    "plan_of",
    "raw",
    "record",
    "same_topics",
    "small_plan",
]
