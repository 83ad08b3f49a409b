"""The state of one source partition on local disk: RocksDB, written in batches, each with the changelog offset it
stands for.

There is no write-ahead log: the changelog is one. A write goes to one memtable as a whole, and memtables reach the
disk in order, so after a crash the database is what it was at some earlier write, and `changelog_offset` says at
which; the rest is restored from there. A directory that cannot be used is deleted and restored from the changelog's
start.
"""

from __future__ import annotations

import fcntl
import shutil
import struct
import weakref
from collections.abc import Generator, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import IO, Any

import structlog
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from tidegate.clock import Clock, SystemClock
from tidegate.config.topic_settings import DELETIONS_KEPT

log = structlog.get_logger(__name__)

FORMAT = 2  # of the files and keys below; a directory with another number is deleted and restored
_MAX_AGE = DELETIONS_KEPT / 2 / 1000  # seconds; older state could hold rows that were deleted meanwhile
_META = b"\xff"  # above every key of the rows, so that no scan meets it
_STAMP_KEY = _META + b"stamp"
_STAMP = struct.Struct(
    "<qd"
)  # changelog offset, time of writing in seconds since the epoch; the changelog's id follows
_FORMAT_FILE = "FORMAT"

# One cache for all partitions of the process: with a cache each, memory would grow with the number of partitions.
_CACHE_BYTES = 64 << 20
_WRITE_BUFFER = 8 << 20  # twice this per partition at most: one that is filled, one that is flushed
_OPEN_FILES = 64
_cache: list[Cache] = []


class PartitionDB:
    """Rows of bytes, ordered by key. Keys must not start with 0xff. One process and one owner at a time.

    `changelog_offset` is the offset of the last changelog record that the rows contain (None: none, start from the
    beginning).
    """

    def __init__(self, path: str | Path, *, changelog_id: str = "", clock: Clock | None = None) -> None:
        """Open or create. `changelog_id`: the changelog's topic id ("": the broker gives none). State of a changelog with
        another id is deleted: the topic was made anew, and its offsets are not those that the state stands for.

        A directory that another process has open is left alone: this one takes `path.2`, `path.3`, … as its own."""
        self._clock: Clock = clock or SystemClock()
        self._changelog_id = changelog_id
        self._scans: weakref.WeakSet[Generator[tuple[bytes, bytes], None, None]] = weakref.WeakSet()
        unlogged: Any = WriteOptions()
        unlogged.disable_wal = True  # a property, whatever the stub says
        self._write_options = unlogged
        self.path, self._lock = _claim(Path(path))
        self._open()
        self._distrust()

    def _open(self) -> None:
        if self.path.exists() and (found := _format_of(self.path)) != FORMAT:
            self._delete(f"it has format {found}, this version writes {FORMAT}")
        try:
            self._db = self._create()
        except Exception as error:  # rocksdict raises plain Exception: corrupt, unreadable
            self._delete(f"it cannot be opened: {error}")
            self._db = self._create()

    def _create(self) -> Rdict:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / _FORMAT_FILE).write_text(f"{FORMAT}\n")
        db = Rdict(str(self.path), options=_options())
        stamp: Any = db.get(_STAMP_KEY)
        self.changelog_offset: int | None = None
        self._written: float | None = None
        self._stamped_id = ""
        if stamp is not None:
            self.changelog_offset, self._written = _STAMP.unpack_from(stamp)
            self._stamped_id = stamp[_STAMP.size :].decode()
        return db

    def _distrust(self) -> None:
        """Delete state that the changelog can no longer bring up to date."""
        if self.changelog_offset is None or self._written is None:
            return
        if self._stamped_id and self._changelog_id and self._stamped_id != self._changelog_id:
            self.wipe(
                f"it is of a changelog with id {self._stamped_id}; this one was made anew, and has {self._changelog_id}"
            )
        elif (age := self._clock.time() - self._written) > _MAX_AGE:
            self.wipe(f"it was written {age / 3600:.0f} hours ago, and deletions are forgotten")

    def _delete(self, reason: str) -> None:
        log.warning("state.wiped", path=str(self.path), reason=reason, next="restored from the changelog")
        shutil.rmtree(self.path)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of many keys at once, in the order of `keys`."""
        values: Any = self._db[list(keys)] if keys else []
        return list(values)

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes], changelog_offset: int) -> None:
        """All of it at once, or nothing. `changelog_offset`: of the last changelog record that this brings."""
        batch = WriteBatch(raw_mode=True)
        for key, value in puts:
            batch.put(key, value)
        for key in deletes:
            batch.delete(key)
        self._commit(batch, changelog_offset)

    def apply(self, keys: Sequence[bytes], values: Sequence[bytes | None], changelog_offset: int) -> None:
        """Changelog records in their order; a null value deletes. The form in which `restore` brings them."""
        batch = WriteBatch(raw_mode=True)
        for key, value in zip(keys, values, strict=True):
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        self._commit(batch, changelog_offset)

    def delete_range(self, start: bytes, end: bytes, changelog_offset: int) -> None:
        """Delete every key with `start` ≤ key < `end`."""
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(start, end)
        self._commit(batch, changelog_offset)

    def _commit(self, batch: WriteBatch, changelog_offset: int) -> None:
        stamp = _STAMP.pack(changelog_offset, self._clock.time()) + (self._changelog_id or self._stamped_id).encode()
        batch.put(_STAMP_KEY, stamp)
        self._db.write(batch, self._write_options)
        self.changelog_offset = changelog_offset

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows with `start` ≤ key < `end`, ascending, as they are now: later writes do not appear."""
        scan = self._scan(start, min(end, _META))
        self._scans.add(scan)
        return scan

    def _scan(self, start: bytes, end: bytes) -> Generator[tuple[bytes, bytes], None, None]:
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        items = self._db.items(from_key=start, read_opt=options)
        try:
            yield from items
        finally:
            del items  # an iterator that lives on would keep the database open, and locked, after `close`

    def wipe(self, reason: str) -> None:
        """Delete everything and go on empty: the caller restores from the changelog's start."""
        self._close()
        self._delete(reason)
        self._open()

    def close(self) -> None:
        """Flush to disk and let go of the lock, so that the next start has little to restore."""
        if self.changelog_offset is not None:
            self._commit(WriteBatch(raw_mode=True), self.changelog_offset)  # as current as of now
        self._close()
        self._lock.close()

    def _close(self) -> None:
        for scan in list(self._scans):
            scan.close()
        self._db.flush(wait=True)
        self._db.close()


def _claim(path: Path) -> tuple[Path, IO[str]]:
    """The first of `path`, `path.2`, … that no other process has. Any state will do: the changelog completes it.

    Not RocksDB's own lock: deleting or sharing the files of a stopped process that may wake up would damage both.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}.{number}")
        lock = candidate.with_name(f"{candidate.name}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            log.warning("state.in_use", path=str(candidate), next="another directory, restored from the changelog")
        else:
            _remove_left_over(path, number + 1)
            return candidate, lock
    raise AssertionError  # count() has no end


def _remove_left_over(path: Path, number: int) -> None:
    """Delete `path.<number>` and those after it, up to the first that a process has or that is not there: what another
    process took while this directory was in use, and has left."""
    while (candidate := path.with_name(f"{path.name}.{number}")).exists():
        with candidate.with_name(f"{candidate.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            shutil.rmtree(candidate, ignore_errors=True)
        number += 1


def _options() -> Options:
    if not _cache:
        _cache.append(Cache(_CACHE_BYTES))
    table = BlockBasedOptions()
    table.set_block_cache(_cache[0])
    table.set_cache_index_and_filter_blocks(True)  # else index and filters grow outside the cache's limit
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(10, False)  # 10 bits per key: about 1 % of reads of absent keys touch the disk
    table.set_block_size(16 << 10)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(_WRITE_BUFFER)
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(_OPEN_FILES)
    options.set_keep_log_file_num(2)
    return options


def _format_of(path: Path) -> int | None:
    try:
        return int((path / _FORMAT_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None
