"""What a store is: results and offsets in one transaction, with a compare-and-set that fences every other writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.windows import NEVER
from tidegate.store.late import LateCounts, LateWindow, total

BEFORE_ALL = -(2**62)  # ms; before any window that starts


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """One source partition as the store has it. `epoch` grows by one with every claim; `owner` is who claimed last.

    `seen_upto`: up to which offset the store has dedupe's memory without a gap (StoreBatch.seen); -1: not at all.
    `worker_upto`: the last offset of a batch that was not `complete`. Its writer may have been killed before it wrote the rest,
    which has to be made up for; of what comes after it nothing lacks.
    `answers`: what was written with the batch up to `worker_upto` (StoreBatch.answers). Only `Store.claim` gives it; None
    when nothing was.
    """

    tp: TopicPartition
    state: PartitionState
    epoch: int
    owner: str
    answers: bytes | None = None
    seen_upto: int = -1
    worker_upto: int = -1


@dataclass(frozen=True, slots=True)
class StoreBatch:
    """One batch's results. Written only if the partition row still has `expected_upto` and `epoch`.

    `answers`: BatchResult.answers by `encode_answers` (answers.py), for a writer that keeps a second state which this batch
    reaches only after the store, as the worker's changelog: should it have to repeat the batch for that state alone, it
    takes these instead of asking handlers and sink again. None: there are none. A later batch replaces them.
    `seen`: dedupe's memory of this batch (`key`, `at` in ms); None: the pipeline has none.
    `complete`: whatever else is to be written of the batch was written before it; False: its writer does that afterwards.
    `new_after` (ms): what is in the store of this partition in the lane `live` is in windows that start no later: whatever is
    added to a later one is new there. Nothing is lost if that is wrong, only time. None: not known.
    `perhaps_there`: aggregation → of each row of its deltas, whether that need not be so, because the writer has added to that
    window since.
    """

    tp: TopicPartition
    epoch: int
    expected_upto: int
    state: PartitionState
    deltas: Mapping[str, pa.Table] = field(default_factory=dict)
    late_windows: pa.Table | None = None
    answers: bytes | None = None
    seen: pa.Table | None = None
    complete: bool = False
    new_after: int | None = None
    perhaps_there: Mapping[str, pa.Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Amendment:
    """What the late records of one source partition with `before` < offset ≤ `upto` add to the windows that miss them.

    `owner`: of this run alone. `deltas` as in StoreBatch, in the lane `late`. `changes`: of the late table's counts.
    """

    tp: TopicPartition
    owner: str
    before: int
    upto: int
    deltas: Mapping[str, pa.Table]
    changes: Mapping[LateWindow, LateCounts]


@dataclass(frozen=True, slots=True)
class TimedOut:
    """`upto`: windows that end by then (ms) have left the store. `windows`: aggregation → how many just now. `late`: records that
    these missed, and that will not be brought in any more."""

    upto: int
    windows: Mapping[str, int] = field(default_factory=dict)
    late: int = 0


@dataclass(frozen=True, slots=True)
class LateAccount:
    """What windows of one source partition miss, as of one moment. `upto`: the last applied offset; `amended_upto`: the
    late records up to there are in the results, but for those that are counted as refused. `timed_out`: windows that end by then
    (ms) have left the store, and are not amended any more; NEVER: none has."""

    tp: TopicPartition
    upto: int
    amended_upto: int
    windows: Mapping[LateWindow, LateCounts]
    timed_out: int = NEVER

    @property
    def total(self) -> LateCounts:
        return total(self.windows.values())


def new_after(before: PartitionState) -> int:
    """`StoreBatch.new_after` for a batch that starts from this state: no live record of it was later than its high water."""
    return before.high_water if before.high_water is not None else BEFORE_ALL


class Store(Protocol):
    """Synchronous; the worker calls it from a thread. Safe under threads (a connection pool behind it)."""

    def prepare(self) -> None:
        """Create what is missing and check what is there.

        Raises ConfigError when a table exists with other columns, StoreUnavailable when the database is away.
        """

    def expect(self, tps: Sequence[TopicPartition], topic_ids: Mapping[str, str]) -> None:
        """Make rows (`upto` −1, epoch 0, no owner) for partitions that have none, so that a partition which nobody has
        opened yet holds windows open, as one that has seen no record does. `tps`: all that the topics have, as far as is known;
        a row of one of these topics as it was under another id becomes idle. `topic_ids`: topic → id, "" if not known.
        """

    def claim(self, tps: Sequence[TopicPartition], owner: str) -> dict[TopicPartition, PartitionRow]:
        """Take the partitions: each row's epoch grows by one (a missing row is created with `upto` −1, epoch 1).

        The rows returned hold the new epoch, in `owner` the *previous* owner ("" for a new row), and the answers of the
        last batch if it has any. Raises StoreHeld when another than `owner` holds the pipeline.
        """

    def hold(self, holder: str, duration: int) -> None:
        """Keep everybody else from claiming partitions of this pipeline for `duration` ms; again: for so long from now.

        Whoever has claimed some already is fenced by the holder's own claim. Raises StoreHeld when somebody else has it.
        """

    def renew_hold(self, holder: str, duration: int) -> bool:
        """Hold on for `duration` ms from now. False: the hold had expired, and somebody has claimed partitions since."""

    def held_by(self) -> str | None:
        """Who holds the pipeline; None: nobody."""

    def release_hold(self, holder: str) -> None:
        """Let go of the pipeline, if it is still held."""

    def write(self, *batches: StoreBatch) -> None:
        """Apply batches, each of another partition, in one transaction: late windows and deltas added up, the partition
        rows compared and set, the answers and what dedupe has seen kept.

        What belongs to windows that have timed out is not added, but counted as `expired` in the late table.

        Raises StoreFenced (nothing written), SinkRecordError with the guilty delta rows (nothing written),
        StoreUnavailable (unknown whether written: claim again to learn it).
        """

    def time_out(self, epochs: Mapping[TopicPartition, int], timeout: int) -> TimedOut | None:
        """Delete the windows that end more than `timeout` ms before the pipeline-wide watermark, for good, and give up the
        records that they miss; in one transaction. `epochs`: of the caller's claims. None: there is nothing to do.

        Rows of topics that are not in the file, and idle ones, need not be the caller's: whoever has one is fenced.

        Raises StoreFenced when the caller has not all partitions any more (nothing deleted), StoreUnavailable.
        """

    def late_accounts(self) -> list[LateAccount]:
        """Of all source partitions, by topic and partition; all of one moment. None before there are tables."""

    def amend(self, *amendments: Amendment) -> None:
        """Add late records' deltas and move the late table's counts, each amendment of another partition, in one transaction.
        A worker may write at the same time: nothing that its compare-and-set guards is touched. The same amendment once more
        changes nothing.

        Raises StoreFenced when another backfill has moved `amended_upto` since (nothing written), SinkRecordError with the
        guilty delta rows (nothing written), StoreUnavailable (unknown whether written: try again).
        """

    def seen(self, tp: TopicPartition, keys: Sequence[bytes]) -> list[int | None]:
        """The event time (ms) of each key's first record as batches have written it (`StoreBatch.seen`), or None."""

    def partitions(self) -> list[PartitionRow]:
        """All partition rows of this pipeline, by topic and partition."""

    def windows(
        self, tp: TopicPartition, aggregation: str, *, open_after: int | None, changed_after: int = -1
    ) -> Iterable[pa.Table]:
        """The partials of one source partition, lanes added up, in chunks: those whose window ends after `open_after` (ms; None:
        any) and that have records of offsets after `changed_after`."""

    def late(self, tp: TopicPartition) -> pa.Table:
        """How many records each window misses of one source partition, as LATE_WINDOWS_SCHEMA."""

    def remembered(self, tp: TopicPartition) -> Iterable[pa.Table]:
        """All that dedupe's memory has of one source partition, as SEEN_SCHEMA, in chunks."""

    def open_windows(self, watermarks: Mapping[TopicPartition, int | None]) -> dict[TopicPartition, int]:
        """Per partition: how many windows of all aggregations end after its watermark (ms; None: all are open)."""

    def set_idle(self, tps: Sequence[TopicPartition], idle: bool) -> None:
        """Say that partitions no longer hold windows open, or do again; only those that this instance claimed last."""

    def close(self) -> None: ...
