"""The whole pipeline as a model in plain Python: one record at a time, dictionaries and loops, nothing vectorised.

It reads the same pipeline file, restricted to what can be said without SQL: groupBy, measures and the dedupe key name
plain columns. It shares no code with the stages but the dataclasses of tidegate.stages.batch.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa

from tidegate.config.pipeline import Pipeline
from tidegate.config.stages import Aggregation, Hopping, NotNull, Range, Regex
from tidegate.record import TopicPartition
from tidegate.stages.batch import RAW_SCHEMA, RawBatch


class Record(NamedTuple):
    """One record of a partition's log."""

    offset: int
    timestamp: int  # ms
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = None


def as_replay(record: Record, job: str | None = None, position: int | str = 1, place: str = "flights/0") -> Record:
    """As a job sends it to this place; without a job, as something else does."""
    headers = [("tidegate.replay.of", b"flights-0-1-decode")]
    if job is not None:
        content = zlib.crc32((record.key or b"") + (record.value or b""))
        headers.append(("tidegate.replay.job", f"{job}/{position}".encode()))
        headers.append(("tidegate.replay.to", f"{place}/{content:08x}".encode()))
    return record._replace(headers=tuple(headers))


class Late(NamedTuple):
    """A record and the windows it missed: (aggregation, start, end)."""

    offset: int
    watermark: int
    missed: frozenset[tuple[str, int, int]]
    partial: bool


Cell = tuple[int, int, str, tuple[Any, ...]]
"""Window start, window end, lane, group."""


@dataclass
class Outcome:
    """Where each record ended, and what was counted."""

    read: int = 0
    replayed: int = 0
    accepted: list[int] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)  # offset → stage
    late: list[Late] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    high_water: int | None = None
    clock: int | None = None
    rows: dict[str, dict[Cell, list[tuple[int, int, dict[str, Any]]]]] = field(default_factory=dict)

    def missing(self) -> dict[tuple[str, int, int], int]:
        """How many records each window misses."""
        counted: dict[tuple[str, int, int], int] = {}
        for late in self.late:
            for window in late.missed:
                counted[window] = counted.get(window, 0) + 1
        return counted


class Invalid(Exception):
    """The record is rejected at a stage."""


class Replays:
    """Which replays were in one partition (`at`: topic/partition): of the `most` jobs that were there last."""

    def __init__(self, at: str, most: int) -> None:
        self._at, self._most = at, most
        self._jobs: list[tuple[bytes, int]] = []  # the one that was there last at the end

    def is_repeat(self, record: Record) -> bool:
        """Whether the record was sent to this partition, as it is, by a job that had come as far before."""
        told: dict[str, list[bytes]] = {}
        for name, value in record.headers:
            told.setdefault(name, []).append(value)
        once = [found[0] for name in ("of", "job", "to") if len(found := told.get(f"tidegate.replay.{name}", [])) == 1]
        if len(once) < 3:
            return False
        _, job, to = once
        place, read = to.rpartition(b"/")[0], re.fullmatch(rb"([0-9a-fA-F]{16})/([0-9]{1,18})", job)
        if place != self._at.encode() or read is None:
            return False
        name, position = read[1].lower(), int(read[2])
        before = max((highest for other, highest in self._jobs if other == name), default=-1)
        others = [one for one in self._jobs if one[0] != name]
        self._jobs = [*others, (name, max(before, position))][-self._most :]
        content = f"{zlib.crc32((record.key or b'') + (record.value or b'')):08x}"
        return position <= before and to == f"{self._at}/{content}".encode()


class Reference:
    """The model of one pipeline. `jobs`: whose replays are remembered in each partition, at most."""

    def __init__(self, pipeline: Pipeline, *, jobs: int = 256) -> None:
        self.pipeline, self._jobs = pipeline, jobs

    def read(
        self, records: Iterable[Record], refused: dict[int, str] | None = None, *, at: str = "flights/0"
    ) -> Outcome:
        """What becomes of each record. `refused`: offsets that a handler or sink refuses, and at which stage. `at`: the
        partition that they are of."""
        outcome, firsts, replays = Outcome(), dict[Any, int](), Replays(at, self._jobs)
        outcome.rows = {aggregation.name: {} for aggregation in self.pipeline.aggregations}
        marked: set[Any] = set()
        for record in records:
            outcome.read += 1
            outcome.replayed += any(name == "tidegate.replay.of" for name, _ in record.headers)
            if replays.is_repeat(record):
                outcome.duplicates.append(record.offset)
                continue
            if record.value is None:
                outcome.skipped.append(record.offset)
                continue
            try:
                row = self._decode(record.value)
                self._add_key(row, record)
                self._validate(row)
                event_time = self._event_time(row, record)
            except Invalid as invalid:
                outcome.rejected[record.offset] = str(invalid)
                continue
            replayed = any(name in ("tidegate.replay.of", "tidegate.retry.of") for name, _ in record.headers)
            if self._is_duplicate(row, event_time, firsts, marked, outcome, replayed=replayed):
                outcome.duplicates.append(record.offset)
                continue
            self._place(record, row, event_time, outcome, refused or {}, marked, replayed=replayed)
        return outcome

    def _decode(self, value: bytes) -> dict[str, Any]:
        try:
            parsed = json.loads(value.decode(), parse_float=Decimal)
        except ValueError as error:
            raise Invalid("decode") from error
        if not isinstance(parsed, dict):
            raise Invalid("decode")
        row = {}
        for column in self.pipeline.schema_:
            found = parsed.get(column.name)
            if found is None and not column.nullable:
                raise Invalid("decode")
            row[column.name] = None if found is None else _typed(found, column.type)
        return row

    def _add_key(self, row: dict[str, Any], record: Record) -> None:
        source = self.pipeline.source
        if source is not None and source.key.column is not None:
            row[source.key.column] = None if record.key is None else record.key.decode()

    def _validate(self, row: dict[str, Any]) -> None:
        for rule in self.pipeline.rules:
            assert isinstance(rule, NotNull | Range | Regex), "the model knows these rules only"
            value = row[rule.column]
            if isinstance(rule, NotNull):
                good = value is not None
            elif value is None:
                good = True
            elif isinstance(rule, Range):
                low, high = rule.min, rule.max
                good = (low is None or value >= low) and (high is None or value <= high)
            else:
                good = re.fullmatch(rule.pattern, value) is not None
            if not good:
                raise Invalid("validate")

    def _event_time(self, row: dict[str, Any], record: Record) -> int:
        config = self.pipeline.event_time
        assert config is not None
        event_time: int | None = row[config.column]
        if event_time is None:
            raise Invalid("event_time")
        if config.max_future_skew is not None and event_time > record.timestamp + config.max_future_skew:
            raise Invalid("event_time")
        return event_time

    def _is_duplicate(
        self,
        row: dict[str, Any],
        event_time: int,
        firsts: dict[Any, int],
        marked: set[Any],
        outcome: Outcome,
        *,
        replayed: bool,
    ) -> bool:
        clock = outcome.clock
        if not replayed:
            outcome.clock = event_time if clock is None else max(clock, event_time)
        if self.pipeline.dedupe is None:
            return False
        key = row[self.pipeline.dedupe.key]
        if key is None:
            return False
        first = firsts.get(key)
        if first is not None and (clock is None or first >= clock - self.pipeline.dedupe.horizon):
            if replayed and key in marked:
                marked.discard(key)  # stands in for the first record, which was refused
                return False
            return True
        marked.discard(key)
        firsts[key] = event_time
        return False

    def _place(
        self,
        record: Record,
        row: dict[str, Any],
        event_time: int,
        outcome: Outcome,
        refused: dict[int, str],
        marked: set[Any],
        *,
        replayed: bool,
    ) -> None:
        """Decide lateness, move the high water, and count."""
        config = self.pipeline.event_time
        assert config is not None
        watermark = None if outcome.high_water is None or replayed else outcome.high_water - config.delay
        if not replayed:
            outcome.high_water = event_time if outcome.high_water is None else max(outcome.high_water, event_time)
        taken: list[tuple[str, int, int]] = []
        missed: list[tuple[str, int, int]] = []
        for aggregation in self.pipeline.aggregations:
            for start, end in windows_of(aggregation, event_time):
                is_late = watermark is not None and end <= watermark - config.allowed_lateness
                (missed if is_late else taken).append((aggregation.name, start, end))
        key = row[self.pipeline.dedupe.key] if self.pipeline.dedupe else None
        if replayed and outcome.high_water is not None:
            expiry = outcome.high_water - config.delay - config.allowed_lateness - config.retention
            if any(end <= expiry for _, _, end in taken):
                outcome.rejected[record.offset] = "event_time"
                marked.add(key)
                return
        if missed and not taken:
            assert watermark is not None
            outcome.late.append(Late(record.offset, watermark, frozenset(missed), partial=False))
            marked.add(key)
            return
        if record.offset in refused:
            outcome.rejected[record.offset] = refused[record.offset]
            marked.add(key)
            return
        outcome.accepted.append(record.offset)
        if missed:
            assert watermark is not None
            outcome.late.append(Late(record.offset, watermark, frozenset(missed), partial=True))
        lane = "replay" if replayed else "live"
        groups = {a.name: tuple(row[g.name] for g in a.group_by) for a in self.pipeline.aggregations}
        for name, start, end in taken:
            cell = (start, end, lane, groups[name])
            outcome.rows[name].setdefault(cell, []).append((event_time, record.offset, row))

    def results(self, outcome: Outcome, aggregation: Aggregation) -> dict[Cell, dict[str, Any]]:
        """The measures of each window, lane and group, with `records` and `upto`."""
        results = {}
        for cell, rows in outcome.rows[aggregation.name].items():
            values: dict[str, Any] = {"records": len(rows), "upto": max(offset for _, offset, _ in rows)}
            for name, measure in aggregation.measures.items():
                given = [
                    (at, offset, row[measure.of])
                    for at, offset, row in rows
                    if measure.of and row[measure.of] is not None
                ]
                values[name] = len(rows) if measure.of is None else _measure(measure.type, given)
            results[cell] = values
        return results


def windows_of(aggregation: Aggregation, event_time: int) -> list[tuple[int, int]]:
    """All (start, end) in ms that contain an event time, found by looking at every start nearby."""
    size = aggregation.window.size
    hop = aggregation.window.hop if isinstance(aggregation.window, Hopping) else size
    starts = range((event_time - size) // hop - 1, event_time // hop + 2)
    return [(n * hop, n * hop + size) for n in starts if n * hop <= event_time < n * hop + size]


def _measure(kind: str, given: Sequence[tuple[int, int, Any]]) -> Any:
    values = [value for _, _, value in given]
    if kind == "count":
        return len(values)
    if kind == "approxDistinct":
        return len(set(values))
    if not values:
        return None
    if kind in ("sum", "avg"):
        total = sum(values)
        return total if kind == "sum" else float(total) / len(values)
    if kind in ("min", "max"):
        return min(values) if kind == "min" else max(values)
    return (min(given) if kind == "first" else max(given))[2]


def _typed(found: Any, kind: str) -> Any:
    """The value of a JSON value, or Invalid. Numbers with a point come in as Decimal."""
    whole = isinstance(found, int) and not isinstance(found, bool)
    bounds = {"int": 2**31, "bigint": 2**63}
    if kind in bounds and whole and -bounds[kind] <= found < bounds[kind]:
        return found
    if kind == "double" and (whole or isinstance(found, Decimal)):
        return float(found)
    if kind.startswith("decimal") and (whole or isinstance(found, Decimal)):
        return Decimal(found)
    if kind == "timestamp" and (whole or isinstance(found, Decimal)):
        return math.floor(found)  # a part of a millisecond belongs to the one that it is in
    if kind == "date" and isinstance(found, str):
        return date.fromisoformat(found)
    if (kind == "string" and isinstance(found, str)) or (kind == "boolean" and isinstance(found, bool)):
        return found
    raise Invalid("decode")


def raw_batch(tp: TopicPartition, records: Sequence[Record]) -> RawBatch:
    """Records as the stages take them."""
    headers = [[{"key": name, "value": value} for name, value in r.headers] or None for r in records]
    columns = ([r.offset for r in records], [r.timestamp for r in records], [r.key for r in records])
    arrays = [*columns, [r.value for r in records], headers]
    fields = [pa.array(values, f.type) for values, f in zip(arrays, RAW_SCHEMA, strict=True)]
    return RawBatch(tp, pa.RecordBatch.from_arrays(fields, schema=RAW_SCHEMA))
