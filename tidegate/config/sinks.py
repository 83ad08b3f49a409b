"""Where results go. The PostgreSQL sink is also the store: results and offsets in one transaction."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tidegate.config.base import Millis, Model, Problem, refuse
from tidegate.config.s3 import S3Access
from tidegate.config.schema import Topic
from tidegate.config.urls import ENCODED, POSTGRES_URL, is_postgres_url


def _postgres_url(url: SecretStr) -> SecretStr:
    if not is_postgres_url(url.get_secret_value()):
        refuse(Problem("not the URL of a PostgreSQL database", (), POSTGRES_URL, ENCODED))
    return url


SinkName = Annotated[str, Field(min_length=1, max_length=100)]


class PostgresSink(Model):
    """Partials in `{table}_partials`, their sum in the view `{table}`; missing tables are created, others checked."""

    type: Literal["postgres"]
    name: SinkName = "postgres"
    url: Annotated[SecretStr, AfterValidator(_postgres_url)]
    """`postgresql://user:password@host:5432/database`; give it as `${ENV}`. `/ ? # @ %` in a password are written `%2F %3F
    %23 %40 %25`."""
    schema_: str = Field(default="public", alias="schema", min_length=1)
    """The database schema of the tables."""
    tables: dict[str, str] = Field(default={})
    """Aggregation name → table name; default: the aggregation's name."""
    timeout: Millis = Field(default=30_000, gt=0)
    """How long one statement may take."""


class SqliteSink(Model):
    """The PostgreSQL sink's tables in one file, for tests and small use: one writer at a time. Decimals are text."""

    type: Literal["sqlite"]
    name: SinkName = "sqlite"
    path: str
    tables: dict[str, str] = Field(default={})
    """Aggregation name → table name; default: the aggregation's name."""
    timeout: Millis = Field(default=30_000, gt=0)
    """How long a write waits for another writer."""


OutputMode = Literal["update", "append", "complete"]


class Follower(Model):
    """A sink beside the database: it has no state of its own, and is given results of the database's."""

    output_mode: OutputMode | None = None
    """Which results the sink is given. `update`: those that changed, and those whose window has closed; `append`: each once
    its window has closed, and again when it is corrected after that; `complete` (`tidegate batch run` only): all there are,
    each time. Left out: as each aggregation's `emit` says, `append` for `final`."""

    def mode(self, emit: Literal["updates", "final"]) -> OutputMode:
        """Of an aggregation that says `emit`."""
        return self.output_mode or ("append" if emit == "final" else "update")


class KafkaSink(Follower):
    """Results as JSON, keyed by window and group, one topic per aggregation. The newest of each is kept for ever, unless you
    give the topic another `cleanup.policy`. When a partition that was idle wakes up with records of windows that are
    forgotten by then (`eventTime.retention`), totals over partitions do not come any more: they are counted in
    `tidegate_results_expired_total`, and a database sink has them."""

    type: Literal["kafka"]
    name: SinkName = "kafka"
    topics: dict[str, Topic] = Field(default={})
    """Aggregation name → topic; default `{pipelineId}.{aggregation}`."""


_S3: Final = "s3://"


def _place(path: str) -> str:
    if "://" in path and not re.fullmatch(r"s3://[^/\s]+(/.*)?", path):
        refuse(Problem("no place for files", (), "a directory, or s3://bucket/prefix"))
    return path.rstrip("/") or "/"


Place = Annotated[str, Field(min_length=1), AfterValidator(_place)]


class _Lake(Follower):
    """What both sinks of files have."""

    type: str
    name: SinkName
    path: Place
    """A directory, or `s3://bucket/prefix`; below it a folder for each aggregation, by its name."""
    write_mode: str = Field(alias="mode")
    s3: S3Access = S3Access()
    """How the bucket of `path` is reached. It must exist."""

    def mode(self, emit: Literal["updates", "final"]) -> OutputMode:
        """What overwrites needs all results, unless told otherwise."""
        overwrites = self.output_mode is None and self.write_mode == "overwrite"
        return "complete" if overwrites else super().mode(emit)

    @property
    def in_s3(self) -> bool:
        return self.path.startswith(_S3)

    @model_validator(mode="after")
    def _fits_together(self) -> _Lake:
        if not self.in_s3 and self.s3 != S3Access():
            refuse(
                Problem("`path` is a directory, for which this is not needed", ("s3",), "`path: s3://bucket/prefix`")
            )
        return self


class DeltaSink(_Lake):
    """Results as tables of Delta Lake, one per aggregation. Runs on Spark write them, behind the PostgreSQL sink, which must be
    there too; a worker leaves them to the next run."""

    type: Literal["delta"]
    name: SinkName = "delta"
    write_mode: Literal["upsert", "append", "overwrite"] = Field(default="upsert", alias="mode")
    """`upsert`: one row per window and group, the newest. `append`: a row for each change. `overwrite`: all results anew."""


class ParquetSink(_Lake):
    """Results as Parquet files. Runs on Spark write them, behind the PostgreSQL sink, which must be there too; a worker leaves
    them to the next run."""

    type: Literal["parquet"]
    name: SinkName = "parquet"
    write_mode: Literal["append", "overwrite"] = Field(default="append", alias="mode")
    """`append`: a file for each publication, in folders by day, a row for each change. `overwrite`: one file with all results."""


LakeSink = DeltaSink | ParquetSink
Sink = Annotated[PostgresSink | SqliteSink | KafkaSink | DeltaSink | ParquetSink, Field(discriminator="type")]
