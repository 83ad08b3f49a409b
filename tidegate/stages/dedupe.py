"""Dedupe: of the records with one key, the first wins for `horizon` of event time.

`clock(o)` = largest event time among the validated live records with offset < `o`, duplicates included. Record `o` is a
duplicate iff an earlier first record with its key has event time ≥ clock(o) − horizon. The clock never goes back, so
a first record that has expired stays so, and only the newest one of each key is remembered. A NULL key is never a
duplicate.

A replayed record is checked too, but does not move the clock. It can be a duplicate: of a record that came in
meanwhile, or of an earlier replay of the same dead letter. It is none of itself: what decode, validate or the
future-skew check refused was never a first record; and when a first record is refused later (late, by a handler, an
expression or a sink), its key gets a mark that lets the next replay through. Live records do not look at marks, so
that lateness never depends on the outside world. When a replay meets its first record in the same batch (a log that is
read anew), the batch is cut before it, so that the mark is there in time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegate.arrow import where
from tidegate.record import Stage
from tidegate.stages.batch import PartitionState, Rejection, Seen
from tidegate.stages.eventtime import is_live, longs, running_max
from tidegate.stages.expressions import parenthesised
from tidegate.stages.plan import Plan
from tidegate.stages.prepared import EXPRESSION_FAILURES, Prepared, expression_error, failing_rows, without
from tidegate.stages.types import EVENT_TIME, OFFSET
from tidegate.stages.windows import NEVER, Longs


@dataclass(frozen=True, slots=True)
class Deduped:
    """`rows`: first records only. `seen`: what to remember, later entries over earlier ones. `clock`: ms, after the
    batch.
    """

    rows: pa.Table
    rejected: list[Rejection]
    duplicates: int
    seen: list[tuple[bytes, int]]
    clock: int | None
    keys: pa.Array | None = None  # binary, of `rows`
    first_times: Longs | None = None  # ms, of `rows`: when the first record with the key was
    cut: int | None = None  # the offset of a replay that can only be judged when the records before it have gone on

    def marks(self, refused: Collection[int]) -> list[tuple[bytes, int]]:
        """What to remember of first records (offsets) that were refused after all: a replay of them is no
        duplicate.
        """
        if self.keys is None or self.first_times is None or not refused:
            return []
        offsets, times = longs(self.rows.column(OFFSET)), self.first_times
        rows = np.flatnonzero(np.isin(offsets, np.fromiter(refused, np.int64, len(refused))))
        keys = self.keys.take(pa.array(rows)).to_pylist()
        return [(_mark(key), int(times[row])) for row, key in zip(rows, keys, strict=True) if key is not None]


class Dedupe:
    """Splits first records from duplicates. Not for use by two threads at once."""

    def __init__(self, plan: Plan, con: duckdb.DuckDBPyConnection) -> None:
        config = plan.pipeline.dedupe
        self._horizon = config.horizon if config is not None else 0
        self._keys: Prepared | None = None
        if config is not None:
            # A key's text as DuckDB writes it is canonical: the type is known, and it is no double (compile_plan
            # sees to it).
            key = parenthesised(config.key)
            self._keys = Prepared(con, lambda rows: f"SELECT CAST({key} AS VARCHAR) AS key FROM {rows}")

    def split(self, rows: pa.Table, state: PartitionState, seen: Seen) -> Deduped:
        """`rows`: validated, with event time, in offset order.

        1. the dedupe clock as it stood before each record
        2. each record's key; a record whose key cannot be computed is rejected
        3. the first record of each key, against what was seen before this batch and in it
        """
        if rows.num_rows == 0 or _has_no_times(rows):
            return Deduped(rows, [], 0, [], state.dedupe_clock)
        clocks, clock = running_max(longs(rows.column(EVENT_TIME)), is_live(rows), state.dedupe_clock)
        if self._keys is None:
            return Deduped(rows, [], 0, [], clock)
        keys, rejected, kept = self._compute_keys(self._keys, rows)
        if kept is not None:
            rows, clocks = rows.take(pa.array(kept)), clocks[kept]
        found = self._first(rows, keys, clocks, seen)
        if found.cut is not None:
            offset = int(rows.column(OFFSET)[found.cut].as_py())
            return Deduped(rows, rejected, 0, [], clock, cut=offset)
        duplicates = int(len(found.first) - found.first.sum())
        if duplicates:
            rows, keys = where(rows, found.first), keys.filter(pa.array(found.first))
        return Deduped(rows, rejected, duplicates, found.seen, clock, keys, found.first_times[found.first])

    def _compute_keys(self, query: Prepared, rows: pa.Table) -> tuple[pa.Array, list[Rejection], Longs | None]:
        """The keys (binary), and, if some could not be computed, the indices of the rows that are left."""
        rejected: list[Rejection] = []
        kept: Longs | None = None
        try:
            keys = query.run(rows)
        except EXPRESSION_FAILURES:
            failed = list(failing_rows(query.run, rows))
            rejected = [expression_error(rows, row, error, Stage.DEDUPE, "dedupe.key") for row, error in failed]
            kept = without(rows.num_rows, [row for row, _ in failed])
            keys = query.run(rows.take(pa.array(kept)))
        return keys.column("key").combine_chunks().cast(pa.binary()), rejected, kept

    def _first(self, rows: pa.Table, keys: pa.Array, clocks: Longs, seen: Seen) -> _Found:
        """A key that occurs once and was not seen before is first without a look; Python checks the others only."""
        times, replayed = longs(rows.column(EVENT_TIME)), ~is_live(rows)
        encoded = keys.dictionary_encode()
        distinct: list[bytes] = encoded.dictionary.to_pylist()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        has_key = codes >= 0
        known = seen.get(distinct)
        contested = np.bincount(codes[has_key], minlength=len(distinct)) > 1
        contested |= np.fromiter((at is not None for at in known), np.bool_, len(known))
        to_check = has_key & contested[codes] if len(distinct) else has_key
        plain = np.flatnonzero(has_key & ~to_check)
        found = _Found(np.ones(len(codes), dtype=np.bool_), times.copy())
        found.seen += zip([distinct[code] for code in codes[plain]], times[plain].tolist(), strict=True)
        marked = _marked(seen, distinct, codes[to_check & replayed])
        newest: dict[int, int] = {}
        fresh: set[int] = set()  # keys with a record in this batch of which it is not known yet whether it goes through
        for row in np.flatnonzero(to_check).tolist():
            code = int(codes[row])
            before = newest.get(code, known[code])
            if before is not None and before >= clocks[row] - self._horizon:
                if not replayed[row]:
                    found.first[row] = False
                elif code in fresh:
                    found.cut = row
                    return found
                elif marked.pop(code, None) == before:
                    fresh.add(code)
                    found.first_times[row] = before  # stands in for its first record, whose time remains
                    found.seen.append((_mark(distinct[code]), NEVER))
                else:
                    found.first[row] = False
                continue
            if before is not None:
                marked.pop(code, None)
                found.seen.append((_mark(distinct[code]), NEVER))
            fresh.add(code)
            newest[code] = int(times[row])
        found.seen += [(distinct[code], at) for code, at in newest.items()]
        return found


@dataclass(slots=True)
class _Found:
    """Which rows are first records, or stand in for one; the first record's time (ms); what to remember."""

    first: NDArray[np.bool_]
    first_times: Longs
    seen: list[tuple[bytes, int]] = field(default_factory=list)
    cut: int | None = None  # the row at which the batch has to be cut


def _has_no_times(rows: pa.Table) -> bool:
    """Without event time there is nothing to go by."""
    return bool(rows.column(EVENT_TIME).null_count == rows.num_rows)


def _marked(seen: Seen, distinct: list[bytes], codes: Longs) -> dict[int, int]:
    """The event times of the first records that were refused, by the codes of their keys."""
    wanted = sorted(set(codes.tolist()))
    found = seen.get([_mark(distinct[code]) for code in wanted]) if wanted else []
    return {code: at for code, at in zip(wanted, found, strict=True) if at is not None}


def _mark(key: bytes) -> bytes:
    return b"\xff" + key  # keys are UTF-8, in which no byte is 0xff
