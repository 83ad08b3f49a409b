"""An archive's files, on disk or in S3.

{topic}/date=2026-01-31/00003-00000000000000020000-00000000000000039999.parquet   records of one partition and one day (UTC, by
                                                                                  Kafka's timestamp), of the offsets in the name
_tidegate/{topic}/00003/00000000000000020000.plan                                 the stretch that begins there, and where it ends
_tidegate/{topic}/00003/00000000000000020000.done                                 its files; written when all of them are there

What begins with an underscore Spark, DuckDB and Hive leave out when they read the directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa
from pyarrow import fs

from batch.files import replace_file
from tidegate.errors import ConfigError, DependencyError
from tidegate.record import TopicPartition
from tidegate.stages.batch import HEADERS_TYPE

SCHEMA: Final = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", HEADERS_TYPE),
    ]
)
_OWN: Final = "_tidegate"


class ArchiveUnavailable(DependencyError):
    """The disk or S3 does not answer, or refuses."""


class File(msgspec.Struct, frozen=True):
    """One Parquet file. `path` is below the archive's root."""

    path: str
    records: int
    first: int
    last: int


class Stretch(msgspec.Struct, frozen=True):
    """Offsets of one partition that are archived together, `end` not included. `topic_id`: of the log they are offsets in."""

    start: int
    end: int
    topic_id: str = ""
    files: tuple[File, ...] = ()

    @property
    def records(self) -> int:
        return sum(file.records for file in self.files)


@dataclass(frozen=True, slots=True)
class Archive:
    """`place`: a directory, or `s3://bucket/prefix`; credentials and region from the environment as every AWS tool takes
    them, another endpoint by AWS_ENDPOINT_URL. Sent to tasks: it holds no connection.
    """

    place: str

    def check(self, option: str) -> None:
        """Raises ConfigError, of this option, for a place that is none."""
        parts = urlsplit(self.place)
        if "://" in self.place and (parts.scheme != "s3" or not parts.netloc):
            raise ConfigError(
                "no place for an archive", field=option, value=self.place, expected="a directory, or s3://bucket/prefix"
            )

    def stretches(self, tp: TopicPartition) -> tuple[list[Stretch], list[Stretch]]:
        """Those that are done, and those that were begun and are not; by offset."""
        names = sorted(self._names(tp).items())
        done = [self._read(f"{_own(tp)}/{name}.done") for name, kinds in names if "done" in kinds]
        return done, [self._read(f"{_own(tp)}/{name}.plan") for name, kinds in names if kinds == {"plan"}]

    def begin(self, tp: TopicPartition, stretch: Stretch) -> None:
        self.write(f"{_own(tp)}/{stretch.start:020d}.plan", msgspec.json.encode(stretch))

    def finish(self, tp: TopicPartition, stretch: Stretch) -> None:
        self.write(f"{_own(tp)}/{stretch.start:020d}.done", msgspec.json.encode(stretch))

    def write(self, path: str, data: bytes | pa.Buffer) -> None:
        """A file, whole or not at all. Raises ArchiveUnavailable."""
        system, root = self._open()
        target = f"{root}/{path}"
        try:
            if isinstance(system, fs.LocalFileSystem):
                replace_file(Path(target), data)
            else:
                with system.open_output_stream(target) as stream:
                    stream.write(data)
        except OSError as error:
            raise ArchiveUnavailable(f"{self.place} does not take {path}: {error}") from error

    def open(self, path: str) -> pa.NativeFile:
        """For reading. Raises ArchiveUnavailable."""
        system, root = self._open()
        try:
            return system.open_input_file(f"{root}/{path}")
        except OSError as error:
            raise ArchiveUnavailable(f"{self.place} does not give {path}: {error}") from error

    def _read(self, path: str) -> Stretch:
        with self.open(path) as file:
            return msgspec.json.decode(file.read(), type=Stretch)

    def _names(self, tp: TopicPartition) -> Mapping[str, set[str]]:
        """Start → which of the two files are there."""
        system, root = self._open()
        try:
            found = system.get_file_info(fs.FileSelector(f"{root}/{_own(tp)}", allow_not_found=True))
        except OSError as error:
            raise ArchiveUnavailable(f"{self.place} cannot be listed: {error}") from error
        names: dict[str, set[str]] = {}
        for one in found:
            name, _, kind = one.base_name.partition(".")
            if name and kind in ("plan", "done"):
                names.setdefault(name, set()).add(kind)
        return names

    def _open(self) -> tuple[fs.FileSystem, str]:
        try:
            if "://" in self.place:
                system, root = fs.FileSystem.from_uri(self.place)
                return system, root.rstrip("/")
            return fs.LocalFileSystem(), str(Path(self.place).resolve())
        except (OSError, ValueError) as error:
            raise ArchiveUnavailable(f"{self.place}: {error}") from error


def data_path(tp: TopicPartition, day: str, stretch: Stretch) -> str:
    """Where the records of one day and stretch lie: the same whenever they are written."""
    return f"{_safe(tp.topic)}/date={day}/{tp.partition:05d}-{stretch.start:020d}-{stretch.end - 1:020d}.parquet"


def _own(tp: TopicPartition) -> str:
    return f"{_OWN}/{_safe(tp.topic)}/{tp.partition:05d}"


def _safe(topic: str) -> str:
    """A topic's name may begin with a point or underscore, which readers of directories leave out."""
    return topic if topic[0] not in "._" else f"topic-{topic}"
