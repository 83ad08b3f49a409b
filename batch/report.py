"""What a run has done, for people and for machines."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from batch.sink import Commit
from tidegate.clock import Clock
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.store.base import Store


class Ended(Protocol):
    """What every report says of how the work ended."""

    seconds: float
    stopped: bool
    error: str | None


@contextmanager
def reported(report: Ended, store: Store, clock: Clock, stop: threading.Event) -> Iterator[None]:
    """Work on a store, which is closed after it: what ended it, how long it took, and whether it was told to stop."""
    begun = clock.monotonic()
    try:
        yield
    except BaseException as error:
        report.error = str(error) or type(error).__name__
        raise
    finally:
        store.close()
        report.seconds = clock.monotonic() - begun
        report.stopped = stop.is_set()


@dataclass(slots=True)
class Report:
    """`ledgers`: what this run alone has added. `dead_letters`: what the brokers have of it, for records that failed.
    `published`: sink beside the database → results that it was given. `timed_out`: aggregation → windows that have left the
    database for good."""

    pipeline: str
    batches: int = 0
    seconds: float = 0.0
    dead_letters: int = 0
    ledgers: dict[TopicPartition, Ledger] = field(default_factory=dict)
    states: Mapping[TopicPartition, PartitionState] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    timed_out: dict[str, int] = field(default_factory=dict)
    stopped: bool = False
    error: str | None = None

    def add(self, commit: Commit) -> None:
        """One micro-batch more."""
        self.batches += 1
        self.dead_letters += commit.dead
        for tp, ledger in commit.ledgers.items():
            self.ledgers[tp] = self.ledgers.get(tp, Ledger()) + ledger

    def add_published(self, sink: str, results: Mapping[str, int]) -> None:
        """One publication more. `results`: of each aggregation."""
        self.published[sink] = self.published.get(sink, 0) + sum(results.values())

    def add_timed_out(self, windows: Mapping[str, int]) -> None:
        """Of each aggregation, how many have gone."""
        for name, number in windows.items():
            self.timed_out[name] = self.timed_out.get(name, 0) + number

    @property
    def total(self) -> Ledger:
        total = Ledger()
        for ledger in self.ledgers.values():
            total += ledger
        return total

    @property
    def outcome(self) -> str:
        return "failed" if self.error else "stopped" if self.stopped else "finished"

    def partitions(self) -> list[dict[str, Any]]:
        """A row per source partition that the run has claimed."""
        return [
            {"topic": tp.topic, "partition": tp.partition, "upto": state.upto if state.upto >= 0 else None}
            | asdict(self.ledgers.get(tp, Ledger()))
            for tp, state in sorted(self.states.items())
        ]

    def document(self) -> dict[str, Any]:
        """For `--json`. `failed`: records that failed a stage; `deadLettered`: letters for them that the brokers have."""
        total = self.total
        return {
            "pipelineId": self.pipeline,
            "outcome": self.outcome,
            "error": self.error,
            "batches": self.batches,
            "seconds": round(self.seconds, 3),
            "read": total.read,
            "accepted": total.accepted,
            "failed": total.dead_lettered,
            "deadLettered": self.dead_letters,
            "late": total.late,
            "duplicate": total.duplicate,
            "published": dict(self.published),
            "timedOut": dict(self.timed_out),
            "partitions": self.partitions(),
        }
