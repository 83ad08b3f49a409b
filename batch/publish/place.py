"""Where a lake sink's files lie: a folder, or a bucket of S3. What goes wrong there, in our words: away, or wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from batch.files import replace_file
from dlq.s3.bucket import Bucket
from tidegate.config.s3 import S3Access
from tidegate.config.sinks import LakeSink
from tidegate.errors import BucketUnavailable, ConfigError, LakeUnavailable, TidegateError

# How delta-rs says that it may not: its error has no more than words.
_REFUSED = ("401 Unauthorized", "403 Forbidden")
# Which errors of a disk say that the place is wrong; of the others (no space left, an I/O error) it may recover.
_WRONG_PLACE = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)


class Place(Protocol):
    """The `path` of a sink."""

    def uri(self, name: str) -> str:
        """Of a folder below it, for delta-rs."""

    def options(self) -> dict[str, str]:
        """How delta-rs gets there."""

    def write(self, path: str, data: pa.Buffer) -> None:
        """A file below it, whole or not at all, in the place of one that is there.

        Raises LakeUnavailable, BucketUnavailable (it may be written), ConfigError.
        """

    def failure(self, error: Exception) -> TidegateError:
        """What an error of delta-rs means, which says only in words whether the place is away or wrong."""


def open_place(sink: LakeSink, field: str) -> Place:
    """`field`: of the sink, in the pipeline file. Raises ConfigError."""
    if sink.in_s3:
        return _InBucket(sink.path, sink.s3, field)
    return _Folder(Path(sink.path).absolute(), field)


def folder_of(aggregation: str) -> str:
    """The folder of an aggregation. What begins with an underscore Spark, DuckDB and Hive leave out."""
    return aggregation if aggregation[0] != "_" else f"results{aggregation}"


class _Folder:
    def __init__(self, root: Path, field: str) -> None:
        self._root, self._field = root, field

    def uri(self, name: str) -> str:
        return str(self._root / name)

    def options(self) -> dict[str, str]:
        return {}

    def write(self, path: str, data: pa.Buffer) -> None:
        try:
            replace_file(self._root / path, data)
        except OSError as error:
            raise self._judged(error) from error

    def failure(self, error: Exception) -> TidegateError:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._root):
                return LakeUnavailable(f"{self._root}: {error}")
        except OSError as found:
            return self._judged(found)

    def _judged(self, error: OSError) -> TidegateError:
        if isinstance(error, _WRONG_PLACE):
            return ConfigError(
                f"nothing can be written there: {error}",
                field=f"{self._field}.path",
                value=str(self._root),
                expected="a directory that may be written to",
            )
        return LakeUnavailable(f"{self._root} takes nothing: {error}")


class _InBucket:
    def __init__(self, path: str, access: S3Access, field: str) -> None:
        parts = urlsplit(path)
        self._prefix, self._access, self._field = parts.path.strip("/"), access, field
        self._bucket = Bucket(access, parts.netloc, field=f"{field}.s3", name_field=f"{field}.path")

    def uri(self, name: str) -> str:
        return f"s3://{self._bucket.name}/{self._key(name)}"

    def options(self) -> dict[str, str]:
        """What boto3 has found, so that both reach the same. Tries again are ours (tidegate/resilience)."""
        access, found = self._access, self._bucket.credentials()
        options = {
            "AWS_ENDPOINT_URL": access.endpoint_url,
            "AWS_ALLOW_HTTP": "true" if (access.endpoint_url or "").startswith("http://") else None,
            "AWS_REGION": self._bucket.region,
            "AWS_ACCESS_KEY_ID": found and found.key,
            "AWS_SECRET_ACCESS_KEY": found and found.secret,
            "AWS_SESSION_TOKEN": found and found.token,
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true" if access.addressing_style == "virtual" else None,
            "AWS_SERVER_SIDE_ENCRYPTION": access.server_side_encryption,
            "AWS_SSE_KMS_KEY_ID": access.sse_kms_key_id,
            "max_retries": "0",
            "connect_timeout": "5s",
            "timeout": "30s",
        }
        return {name: value for name, value in options.items() if value is not None}

    def write(self, path: str, data: pa.Buffer) -> None:
        self._bucket.put(self._key(path), data.to_pybytes(), "application/vnd.apache.parquet")

    def failure(self, error: Exception) -> TidegateError:
        try:
            self._bucket.check()
        except TidegateError as found:
            return found
        if any(status in str(error) for status in _REFUSED):
            return ConfigError(f"it may not be used: {error}", field=f"{self._field}.path", value=self._bucket.name)
        return BucketUnavailable(f"s3://{self._bucket.name}: {error}")

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path
