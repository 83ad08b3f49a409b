"""Replays that were sent a second time: whether or not the pipeline dedupes, each counts once.

As a rule Kafka sees to that (dlq/replay/sender.py). But it forgets how far a job was when nobody has worked on the job for a
week, and whoever resumes that may have up to a chunk sent again. Such a record carries the same job and position. A job sends
its letters in the order of their positions, each chunk of them in one transaction and none before the last is committed; so
whoever has seen a position of a job knows that all before it were sent, to whatever partition. What is remembered of each job is
the highest position, therefore, and one that is not higher is a repeat. (It rests on that a letter which was not sent stays
unsent: dlq/replay/outcome.py writes that down before the rest of its chunk is sent.)

Others copy headers: Kafka Streams and Spring give them to whatever they make of a record, in other topics or in the same. So a
replay also says where it was sent, and the CRC-32 of its key and value as sent. A position counts only where that names this very
partition, and on a record with that content.

What is remembered follows from the log alone. Where the log has lost its beginning, a record whose first sending is lost with it
is the first: it counts once, too.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple
from zlib import crc32

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.headers import REPLAY_JOB, REPLAY_OF, REPLAY_TO
from tidegate.record import TopicPartition
from tidegate.stages.batch import RawBatch

JOB_BYTES = 8
"""Of a job's id, which is written in hex: that two jobs of one partition have the same is out of the question."""

# Jobs remembered of one partition: one every hour, for ten days. 14 bytes each, written with each batch; all of them cost
# PostgreSQL 0.08 ms.
MOST = 256
_LONGEST = 18  # digits of a position: they are an int64

_DECODER = msgspec.msgpack.Decoder(list[tuple[bytes, int]])


class Sight(NamedTuple):
    """A replay as a job has sent it to this partition."""

    row: int
    job: bytes
    position: int


@dataclass(frozen=True, slots=True)
class Fresh:
    """`records`: all but `repeats` of them. `replayed`: how many of all are replays. `memory`: what the next batch is given."""

    records: pa.RecordBatch
    repeats: int
    replayed: int
    memory: bytes


class Memory:
    """The jobs whose replays were seen in one partition, the one seen last at the end, each with its highest position."""

    def __init__(self, encoded: bytes = b"") -> None:
        self._highest: dict[bytes, int] = dict(_DECODER.decode(encoded)) if encoded else {}

    def see(self, job: bytes, position: int) -> bool:
        """Whether this letter of the job, or a later one, was there before."""
        before = self._highest.pop(job, -1)
        self._highest[job] = max(before, position)
        if len(self._highest) > MOST:
            del self._highest[next(iter(self._highest))]
        return position <= before

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(list(self._highest.items())) if self._highest else b""


def drop_repeats(raw: RawBatch, memory: bytes) -> Fresh:
    """The records without those that are repeats. `memory`: of all before them, b"" at the beginning."""
    records = raw.records
    replayed, seen = _sights(raw)
    if not seen:
        return Fresh(records, 0, replayed, memory)
    remembered = Memory(memory)
    repeats = [sight.row for sight in seen if remembered.see(sight.job, sight.position)]
    if repeats:
        kept = np.ones(len(raw), dtype=np.bool_)
        kept[repeats] = False
        records = records.filter(pa.array(kept))
    return Fresh(records, len(repeats), replayed, remembered.encoded())


def passages(raw: RawBatch) -> list[tuple[bytes, int]]:
    """The jobs whose replays pass, and how far each comes before the next one does. To a `Memory` it is the same as the
    records themselves."""
    found: list[tuple[bytes, int]] = []
    for sight in _sights(raw)[1]:
        if found and found[-1][0] == sight.job:
            found[-1] = (sight.job, max(found[-1][1], sight.position))
        else:
            found.append((sight.job, sight.position))
    return found


def sent_to(tp: TopicPartition, key: bytes | None, value: bytes | None) -> bytes:
    """The header REPLAY_TO of a record."""
    return b"%s%08x" % (_place(tp), crc32(value or b"", crc32(key or b"")))


@lru_cache(maxsize=1024)
def _place(tp: TopicPartition) -> bytes:
    return f"{tp.topic}/{tp.partition}/".encode()


def _sights(raw: RawBatch) -> tuple[int, list[Sight]]:
    """How many records are replays; and those that were sent to this partition by a job, and not made of one."""
    headers = raw.records.column("headers")
    if headers.null_count == len(headers):
        return 0, []
    names, values = (pc.struct_field(headers.flatten(), part) for part in ("key", "value"))
    is_replay = np.asarray(pc.equal(names, REPLAY_OF))
    if not is_replay.any():
        return 0, []
    rows = pc.list_parent_indices(headers).to_numpy()
    replays = np.bincount(rows[is_replay], minlength=len(headers))
    is_job, is_to = np.asarray(pc.equal(names, REPLAY_JOB)), np.asarray(pc.equal(names, REPLAY_TO))
    # A job writes each once; where one is there twice, somebody else has had a hand in it.
    once = [np.bincount(rows[found], minlength=len(headers)) == 1 for found in (is_job, is_to)]
    whole = (replays == 1) & once[0] & once[1]
    if not whole.any():
        return int((replays > 0).sum()), []
    jobs, places = (values.take(pa.array(np.flatnonzero(told & whole[rows]))).to_pylist() for told in (is_job, is_to))
    at = np.flatnonzero(whole)
    keys, contents = (raw.records.column(name).take(pa.array(at)).to_pylist() for name in ("key", "value"))
    itself = map(sent_to, repeat(raw.tp), keys, contents)
    own = [(row, job) for row, job, place, sent in zip(at.tolist(), jobs, places, itself, strict=True) if place == sent]
    return int((replays > 0).sum()), list(_read(own))


def _read(own: Iterable[tuple[int, bytes | None]]) -> Iterator[Sight]:
    """What cannot be read is no job's replay, and goes its way."""
    for row, written in own:
        job, _, position = (written or b"").partition(b"/")
        if len(job) == 2 * JOB_BYTES and position.isdigit() and len(position) <= _LONGEST:
            try:
                yield Sight(row, binascii.unhexlify(job), int(position))
            except binascii.Error:
                continue
