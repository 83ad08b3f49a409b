"""Delayed retries in the order of their key (`errorHandling.retryTopics.keepOrder`): whose turn it is.

While a record waits for its retry, later ones of its key are not handled but put away behind it. What waits of one key is
its line: for each record, in their first order, the offset at which it was put away last, and the delay that it waits. A
record that comes back carries that offset, so that it is found in its line; only the first there is tried, and leaves the
line when it has gone through or is a dead letter. All others are put away again, in the retry topic of the first.

That topic gives back in order. So a record that has waited behind the first, and is back before it, tells that the first is
lost (somebody has emptied the topic): it leaves the line, which would else stand still for ever.

The lines follow from the log and the handlers' answers alone, and are part of the partition's state. A record without key,
and a replay of a dead letter, waits for nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from tidegate.headers import RETRY_BEHIND, RETRY_FROM
from tidegate.record import Stage
from tidegate.stages.batch import Answers, Deferral, PartitionState, RawBatch, Reason, Rejection
from tidegate.stages.eventtime import longs
from tidegate.stages.handle import Handled, HandlerChain, ask
from tidegate.stages.handle.ask import Asked
from tidegate.stages.ladder import Ladder, is_small_enough, retries_done
from tidegate.stages.types import OFFSET

MOST = 10_000  # records that wait in the lines of one partition: they are written with each batch, 10 to 20 bytes each

Line = list[tuple[int, int]]
"""The offset at which each was put away, and the number of the delay that it waits."""

_DECODER = msgspec.msgpack.Decoder(dict[bytes, Line])


class Taken(NamedTuple):
    """`asked`: of the records that were tried, less those that are `deferred`. `lines`: as in the partition's state."""

    asked: Asked
    deferred: list[Deferral]
    lines: bytes


@dataclass(frozen=True, slots=True)
class _Record:
    """One record of the batch. `row`: of those that reach the handlers; None: it did not. `left`, `behind`: what it says
    of its wait. `tries`: how often it was tried before."""

    offset: int
    row: int | None
    left: int | None
    behind: int | None
    tries: int


def ask_in_turn(
    chain: HandlerChain, ladder: Ladder, rows: pa.Table, raw: RawBatch, state: PartitionState, known: Answers | None
) -> Taken:
    """As `ask`, in rounds: of each key the handlers get one record at a time, and none whose turn it is not.

    Raises as `ask` does.
    """
    lanes, free = _lanes(rows, raw)
    queue = _Queue(ladder, raw, _DECODER.decode(state.lines) if state.lines else {})
    parts = list[Asked]()
    while True:
        tried = {key: record for key, lane in lanes.items() if (record := queue.next(key, lane)) is not None}
        wanted = sorted([*free, *(record.row for record in tried.values() if record.row is not None)])
        if parts and not wanted:
            break
        free = []
        parts.append(ask(chain, rows if len(wanted) == len(rows) else rows.take(pa.array(wanted, pa.int64())), raw,
                         state.upto, known))  # fmt: skip
        refused = {one.offset: one for one in parts[-1].handled.rejected}
        for key, record in tried.items():
            queue.tried(key, record, refused.get(record.offset))
    put_away = {one.rejection.offset for one in queue.deferred}
    asked = _joined(parts)
    rejected = [*(one for one in asked.handled.rejected if one.offset not in put_away), *queue.dead]
    handled = Handled(asked.handled.rows, sorted(rejected, key=lambda one: one.offset), asked.handled.filtered)
    return Taken(Asked(handled, asked.answers), queue.deferred, queue.encoded())


@dataclass(slots=True)
class _Queue:
    """The lines, as they change with each record. `dead`: records that would have to wait, and cannot."""

    ladder: Ladder
    raw: RawBatch
    lines: dict[bytes, Line]
    deferred: list[Deferral] = field(default_factory=list)
    dead: list[Rejection] = field(default_factory=list)
    waiting: int = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = sum(map(len, self.lines.values()))

    def next(self, key: bytes, lane: deque[_Record]) -> _Record | None:
        """The next record of this key whose turn it is; those before it are put away. None: there is none any more."""
        while lane:
            record = lane.popleft()
            if record.row is None:
                self._leave(key, record)
            elif self._has_turn(key, record):
                return record
            else:
                self._put_behind(key, record)
        return None

    def tried(self, key: bytes, record: _Record, refused: Rejection | None) -> None:
        """What the handlers have said of it."""
        rung = None if refused is None else self.ladder.rung(refused, self.raw)
        self._leave(key, record)
        if refused is None or rung is None or self.waiting >= MOST:
            return
        self.waiting += 1
        self.lines.setdefault(key, []).insert(0, (record.offset, rung))
        self.deferred.append(Deferral(refused, rung, rung + 1))

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self.lines) if self.lines else b""

    def _has_turn(self, key: bytes, record: _Record) -> bool:
        line = self.lines.get(key)
        if not line:
            return True
        if record.left is not None and record.left != line[0][0] == record.behind:
            self._drop(key, 0)  # it is lost
        return not (line := self.lines.get(key, [])) or line[0][0] == record.left

    def _put_behind(self, key: bytes, record: _Record) -> None:
        line = self.lines[key]
        first, rung = line[0]
        at = _find(line, record)
        why = "it is too large to wait" if not is_small_enough(self.raw, record.offset) else None
        if at is None and self.waiting >= MOST:
            why = f"{MOST} records of its partition wait already"
        if why is not None:
            message = f"an earlier record of its key waits for a delayed retry, and {why}"
            self.dead.append(Rejection(record.offset, Stage.HANDLE, (Reason("CannotWait", message),)))
            self._leave(key, record)
            return
        if at is None:
            self.waiting += 1
            line.append((record.offset, rung))
        else:
            line[at] = (record.offset, rung)
        reason = Reason("WaitsItsTurn", f"offset {first} of the same key waits for a delayed retry")
        self.deferred.append(
            Deferral(Rejection(record.offset, Stage.HANDLE, (reason,)), rung, record.tries, behind=first)
        )

    def _leave(self, key: bytes, record: _Record) -> None:
        at = _find(self.lines.get(key, ()), record)
        if at is not None:
            self._drop(key, at)

    def _drop(self, key: bytes, at: int) -> None:
        self.waiting -= 1
        del self.lines[key][at]
        if not self.lines[key]:
            del self.lines[key]


def _find(line: Sequence[tuple[int, int]], record: _Record) -> int | None:
    """Where in its line it stands. What comes back does so in the line's order, as a rule: near its beginning."""
    if record.left is None:
        return None
    return next((at for at, (offset, _) in enumerate(line) if offset == record.left), None)


def _lanes(rows: pa.Table, raw: RawBatch) -> tuple[dict[bytes, deque[_Record]], list[int]]:
    """Of each key its records in offset order; and the rows that wait for nobody."""
    places = {offset: row for row, offset in enumerate(longs(rows.column(OFFSET)).tolist())}
    lanes: dict[bytes, deque[_Record]] = {}
    free: list[int] = []
    for offset, key, headers in _records(raw):
        row, tries = places.get(offset), retries_done(headers.items())
        if key is None or tries is None:
            free += [] if row is None else [row]
            continue
        left, behind = (_number(headers.get(name)) for name in (RETRY_FROM, RETRY_BEHIND))
        if row is not None or left is not None:
            digest = blake2b(key, digest_size=8).digest()  # two keys with one digest wait for each other, no more
            lanes.setdefault(digest, deque()).append(_Record(offset, row, left, behind, tries))
    return lanes, free


def _records(raw: RawBatch) -> Iterator[tuple[int, bytes | None, Mapping[str, bytes | None]]]:
    columns = (raw.records.column(name).to_pylist() for name in ("offset", "key", "headers"))
    for offset, key, headers in zip(*columns, strict=True):
        yield offset, key, {header["key"]: header["value"] for header in headers or ()}


def _number(written: bytes | None) -> int | None:
    return int(written) if written is not None and written.isdigit() and len(written) < 20 else None


def _joined(parts: Sequence[Asked]) -> Asked:
    """The rounds as one, in offset order."""
    if len(parts) == 1:
        return parts[0]
    handled = [part.handled for part in parts]
    rows = pa.concat_tables([one.rows for one in handled]).sort_by(OFFSET)
    rejected = sorted((one for part in handled for one in part.rejected), key=lambda one: one.offset)
    said = [part.answers for part in parts if part.answers is not None]
    answers = None
    if said:
        given = [one.rows for one in said if one.rows is not None]
        answers = Answers(
            said[0].after,
            said[0].upto,
            pa.concat_tables(given).sort_by(OFFSET) if given else None,
            {one.offset: one for one in rejected},
            np.sort(np.concatenate([one.filtered for one in said])),
        )
    return Asked(Handled(rows, rejected, sum(one.filtered for one in handled)), answers)
