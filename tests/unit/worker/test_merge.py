"""Totals over source partitions: the newest partial of each wins, and the log's watermarks say what is final."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.worker.pieces import COUNTS, SIZE, Partition, plan_of, record
from tidegate.record import TopicPartition
from tidegate.rowkeys import MERGE
from tidegate.stages.plan import Plan
from worker.merge import MergeStages, key_end
from worker.statedb import PartitionDB

SOURCES = [TopicPartition("flights", 0), TopicPartition("flights", 1)]


@dataclass
class Wire:
    offset: int
    key: bytes
    value: bytes | None


class Merge:
    """One partition of the partials topic, fed with what the source partitions sent to it."""

    def __init__(self, plan: Plan, path: Path) -> None:
        self.plan, self.db, self.log = plan, PartitionDB(path), list[Wire]()
        self.out: list[dict[str, Any]] = []
        self.sources = list(SOURCES)
        self.writes = 0
        self.open()

    def open(self) -> None:
        self.stages = MergeStages(self.plan, TopicPartition("p..partials", 0), self.db, lambda: self.sources)
        self.state, self.closed_upto = self.stages.load()

    def append(self, source: Partition) -> None:
        """What a source partition sent to partition 0, since it was last asked."""
        for topic, partition, key, value in source.sent_to:
            if topic == "p..partials" and partition == 0:
                self.log.append(Wire(len(self.log), key, value))
        source.sent_to.clear()

    def read(self, records: list[Wire] | None = None) -> None:
        records = self.log if records is None else records
        step = self.stages.batch(records, self.state, self.closed_upto)
        self.state, self.closed_upto, self.expired = step.state, step.closed_upto, step.expired
        self.writes += 1
        step.effects.apply(self.db, self.writes)
        for rows in step.effects.topics:
            if rows.topic == "p..partials":
                assert rows.partition == 0
                self.log += [Wire(len(self.log) + i, k or b"", v) for i, (k, v, _, _) in enumerate(rows)]
            else:
                self.out += [json.loads(value or b"null") for _, value, _, _ in rows]

    def compacted(self) -> list[int]:
        """The window ends (s) of the partials that compaction leaves of the topic."""
        left = {one.key: one.value for one in self.log}
        rows = [key for key, value in left.items() if value is not None and key[0] != 0]
        return sorted(key_end(msgspec.msgpack.decode(key, type=tuple[bytes, bytes])[0]) // 1000 for key in rows)

    def newest(self) -> list[tuple[int, int, bool]]:
        """(window start in s, total of n, final) of the newest result of each window."""
        found: dict[str, Any] = {}
        for row in self.out:
            start = row["window"]["start"]
            if start not in found or found[start]["revision"] <= row["revision"]:
                found[start] = row
        return [(int(start[17:19]), row["values"]["n"], row["final"]) for start, row in sorted(found.items())]


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Merge, Partition, Partition]]:
    monkeypatch.setitem(COUNTS, "p..partials", 1)
    plan = plan_of(group=())
    merge = Merge(plan, tmp_path / "merge")
    sources = [Partition(plan, tmp_path / str(tp), tp) for tp in SOURCES]
    yield merge, sources[0], sources[1]
    for db in (merge.db, *(source.db for source in sources)):
        db.close()


def test_totals_are_sums_over_the_sources(parts: tuple[Merge, Partition, Partition]) -> None:
    """Each source's newest partial counts once, and `upto` names each source's offset."""
    merge, a, b = parts
    a.take(record(0, 1_000), record(1, 2_000))
    b.take(record(0, 3_000))
    a.take(record(2, 4_000))
    for source in (a, b):
        merge.append(source)
    merge.read()
    assert merge.newest() == [(0, 4, False)]
    assert merge.out[-1]["upto"] == {"flights-0": 2, "flights-1": 0}
    assert merge.out[-1]["revision"] == 3


def test_a_window_is_final_when_every_source_has_passed_it(parts: tuple[Merge, Partition, Partition]) -> None:
    """The slowest source's watermark in the log decides; a source that is not heard of yet holds everything open."""
    merge, a, b = parts
    a.take(record(0, 1_000), record(1, SIZE + 1_000))
    merge.append(a)
    merge.read()
    assert merge.newest() == [(0, 1, False), (10, 1, False)]
    b.take(record(0, 2_000))
    merge.append(b)
    merge.read()
    assert merge.newest() == [(0, 2, False), (10, 1, False)]
    b.take(record(1, SIZE + 1_000))
    merge.append(b)
    merge.read()
    assert merge.newest() == [(0, 2, True), (10, 2, False)]


def test_a_repeat_changes_nothing(parts: tuple[Merge, Partition, Partition]) -> None:
    """The same partials once more, as after a restored source, neither change a total nor are emitted."""
    merge, a, b = parts
    a.take(record(0, 1_000))
    b.take(record(0, 1_000))
    merge.append(a)
    merge.append(b)
    merge.read()
    before = list(merge.out)
    merge.log += [Wire(len(merge.log) + i, one.key, one.value) for i, one in enumerate(list(merge.log))]
    merge.read()
    assert merge.out == before
    merge.read()
    assert (merge.out, merge.state.upto) == (before, merge.log[-1].offset)


def test_an_older_partial_does_not_undo_a_newer_one(parts: tuple[Merge, Partition, Partition]) -> None:
    """By `upto`, not by the order in the log."""
    merge, a, _ = parts
    a.take(record(0, 1_000))
    merge.append(a)
    old = merge.log[0]
    a.take(record(1, 1_000))
    merge.append(a)
    merge.read()
    merge.read([Wire(len(merge.log), old.key, old.value)])
    assert merge.newest() == [(0, 2, False)]


@pytest.mark.parametrize("seed", range(5))
def test_batches_and_restarts_do_not_matter(parts: tuple[Merge, Partition, Partition], seed: int) -> None:
    """Whatever the cuts of the partials' log, and wherever the merge agent starts anew, the newest totals are the same."""
    merge, a, b = parts
    rng, counted = random.Random(seed), 0
    for offset in range(30):
        for source in (a, b):
            source.take(record(offset, offset * 1_000 + rng.randrange(1_000)))
            merge.append(source)
            counted += 1
    position = 0
    while position < len(merge.log):
        size = rng.randrange(1, 9)
        merge.read(merge.log[max(0, position - 2) : position + size])
        position += size
        if rng.random() < 0.3:
            merge.open()
    newest = merge.newest()
    assert sum(n for _, n, _ in newest) == counted == 60
    assert [final for _, _, final in newest] == [True, True, False]


def test_old_totals_are_forgotten(parts: tuple[Merge, Partition, Partition]) -> None:
    """A total goes when the closing bound is `allowedLateness` + `retention` past its window's end."""
    merge, a, b = parts
    for source in (a, b):
        source.take(record(0, 1_000))
        source.take(record(1, 2 * SIZE + 1_000))
        merge.append(source)
    merge.read()
    assert len(list(merge.db.scan(MERGE, MERGE + b"\xff"))) == 2
    for source in (a, b):
        source.take(record(2, SIZE + 20_000 + 1_000))
        merge.append(source)
    merge.read()
    ends = [int.from_bytes(key[5:13], "big") - (1 << 63) for key, _ in merge.db.scan(MERGE, MERGE + b"\xff")]
    assert ends == [3 * SIZE, 4 * SIZE]


def test_the_partials_of_forgotten_windows_leave_the_topic(parts: tuple[Merge, Partition, Partition]) -> None:
    """Of each source; what the merge agent then reads of its own deletions changes nothing and deletes nothing again."""
    merge, a, b = parts
    for source in (a, b):
        source.take(record(0, 1_000))
        source.take(record(1, 2 * SIZE + 1_000))
        merge.append(source)
    merge.read()
    assert merge.compacted() == [10, 10, 30, 30]
    for source in (a, b):
        source.take(record(2, SIZE + 20_000 + 1_000))
        merge.append(source)
    merge.read()
    assert merge.compacted() == [30, 30, 40, 40]
    out, length = list(merge.out), len(merge.log)
    merge.read()
    assert (merge.out, len(merge.log), merge.state.upto) == (out, length, length - 1)
    merge.open()
    merge.read()
    assert (merge.out, len(merge.log)) == (out, length)


def test_a_leap_of_time_still_gives_the_totals_in_between(parts: tuple[Merge, Partition, Partition]) -> None:
    """Windows that are closed and forgotten within one batch of partials are emitted as final all the same."""
    merge, a, b = parts
    for source in (a, b):
        source.take(record(0, 1_000))
        source.take(record(1, 900_000))
        merge.append(source)
    merge.read()
    assert merge.newest()[0] == (0, 2, True)
    assert len(list(merge.db.scan(MERGE, MERGE + b"\xff"))) == 1


def test_an_idle_source_that_wakes_up_too_late_gives_no_false_total(parts: tuple[Merge, Partition, Partition]) -> None:
    """What the others had in a forgotten window is gone, so its total would be too small: none is emitted. It is counted,
    and its partial leaves the topic."""
    merge, a, b = parts
    for source in (a, b):
        source.take(record(0, 1_000))
    b.state = type(b.state)(b.state.upto, b.state.high_water, b.state.dedupe_clock, b.state.ledger, idle=True)
    b.close_upto(b.closed_upto)
    a.take(record(1, 900_000))
    merge.append(b)
    merge.append(a)
    merge.read()
    before = merge.newest()
    assert before[0] == (0, 2, True)
    b.state = type(b.state)(b.state.upto, b.state.high_water, b.state.dedupe_clock, b.state.ledger)
    b.take(record(1, 1_500))
    merge.append(b)
    merge.read()
    assert merge.newest() == before
    assert merge.expired == {"totals": 1}
    assert 10 not in merge.compacted()
