"""Files of dead letters, in S3 or in a folder: into the index, and a single record out of them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import msgspec
from sqlalchemy import select

from dlq.index.database import IndexDatabase
from dlq.index.letters import Row, index_row
from dlq.index.masking import Masker
from dlq.index.writer import IndexWriter
from dlq.s3.bucket import Bucket
from dlq.s3.files import Kept, decode
from dlq.s3.naming import SUFFIXES
from tidegate.config.pipeline import Pipeline
from tidegate.config.queue import DeadLetterConfig
from tidegate.errors import ConfigError

_OPEN_FILES = 8  # that were decoded last
_ENDINGS = tuple(SUFFIXES.values())


class File(NamedTuple):
    """Its URL (`s3://bucket/name` or `file:///path`) and its bytes."""

    url: str
    size: int


class Place(Protocol):
    """Where files are."""

    def files(self) -> Iterator[File]: ...

    def read(self, url: str) -> bytes:
        """Raises BucketUnavailable, ConfigError."""


class S3Place:
    """What begins with a prefix in a bucket."""

    def __init__(self, url: str, config: DeadLetterConfig) -> None:
        parts = urlsplit(url)
        self._prefix = parts.path.lstrip("/")
        self._bucket = Bucket(config, parts.netloc)

    def files(self) -> Iterator[File]:
        for key, size in self._bucket.objects(self._prefix):
            if key.endswith(_ENDINGS):
                yield File(f"s3://{self._bucket.name}/{key}", size)

    def read(self, url: str) -> bytes:
        return self._bucket.get(url.removeprefix(f"s3://{self._bucket.name}/"))


class FolderPlace:
    """A folder with all that is below it, or one file."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def files(self) -> Iterator[File]:
        found = [self._path] if self._path.is_file() else sorted(self._path.rglob("*"))
        for path in found:
            if path.name.endswith(_ENDINGS) and path.is_file():
                yield File(path.as_uri(), path.stat().st_size)

    def read(self, url: str) -> bytes:
        try:
            return Path(unquote(urlsplit(url).path)).read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", file=url) from error


def place_of(location: str, config: DeadLetterConfig) -> Place:
    """`s3://bucket/prefix`, or a path. Raises ConfigError for neither."""
    if location.startswith("s3://"):
        if not urlsplit(location).netloc:
            raise ConfigError("names no bucket", field="FROM", value=location, expected="s3://bucket/prefix")
        return S3Place(location, config)
    path = Path(unquote(urlsplit(location).path)) if location.startswith("file://") else Path(location)
    if not path.exists():
        raise ConfigError("is not there", field="FROM", value=location, expected="s3://bucket/prefix, or a folder")
    return FolderPlace(path)


class Imported(NamedTuple):
    """`new`: letters that the index did not have."""

    files: int
    letters: int
    new: int


def import_files(
    place: Place, writer: IndexWriter, masker: Masker, done: Callable[[File, int], None] = lambda file, letters: None
) -> Imported:
    """All files into the index, one transaction for each. What is there already is not counted again. `done`: is told of
    each file, and how many letters it has.

    Raises ConfigError for a file that is none of ours, BucketUnavailable, StoreUnavailable: those before it are imported.
    """
    files = letters = new = 0
    for file in place.files():
        rows = [_row(kept, file.url, masker) for kept in decode(place.read(file.url), file.url)]
        new += writer.add(rows)
        files, letters = files + 1, letters + len(rows)
        done(file, len(rows))
    return Imported(files, letters, new)


def _row(kept: Kept, url: str, masker: Masker) -> Row:
    row = index_row(kept, kept.tp, masker)
    detail = msgspec.json.decode(row["detail"])
    return {**row, "detail": msgspec.json.encode({**detail, "file": url}).decode()}


class Archive:
    """The records that the index says are in files. One thread."""

    def __init__(self, pipeline: Pipeline, database: IndexDatabase) -> None:
        self._config, self._database = pipeline.error_handling.dead_letter_queue.config, database
        self._read: OrderedDict[str, dict[tuple[str, int, int], Kept]] = OrderedDict()

    def find(self, letter: int) -> Kept | None:
        """The record of a row of the index, or None when no file has it (any more).

        Raises BucketUnavailable, StoreUnavailable.
        """
        t = self._database.tables.letters.c
        query = select(t.dlq_topic, t.dlq_partition, t.dlq_offset, t.detail).where(t.letter == letter)
        with self._database.transaction(reads=True) as connection:
            topic, partition, offset, detail = connection.execute(query).one()
        url = (detail or {}).get("file")
        if url is None:
            return None
        try:
            return self._records(url).get((topic, partition, offset))
        except ConfigError:  # it was deleted, or another file is there now
            return None

    def _records(self, url: str) -> dict[tuple[str, int, int], Kept]:
        if url not in self._read:
            data = place_of(url, self._config).read(url)
            self._read[url] = {(*kept.tp, kept.offset): kept for kept in decode(data, url)}
            if len(self._read) > _OPEN_FILES:
                self._read.popitem(last=False)
        self._read.move_to_end(url)
        return self._read[url]
