"""Where results go. The PostgreSQL sink is also the store: results and offsets in one transaction."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from tidegate.config.base import Millis, Model


class PostgresSink(Model):
    """Partials in `{table}_partials`, their sum in the view `{table}`; tables are created when missing, else checked."""

    type: Literal["postgres"]
    name: str = "postgres"
    url: SecretStr
    schema_: str = Field(default="public", alias="schema")
    tables: dict[str, str] = {}
    """Aggregation name → table name; default: the aggregation's name."""
    timeout: Millis = 30_000


class SqliteSink(Model):
    """The PostgreSQL sink's tables in one file, for tests and small use: one writer at a time. Decimals are held as text."""

    type: Literal["sqlite"]
    name: str = "sqlite"
    path: str
    tables: dict[str, str] = {}
    """Aggregation name → table name; default: the aggregation's name."""
    timeout: Millis = 30_000
    """How long a write waits for another writer."""


class KafkaSink(Model):
    """Results as JSON, keyed by window and group, one topic per aggregation."""

    type: Literal["kafka"]
    name: str = "kafka"
    topics: dict[str, str] = {}
    """Aggregation name → topic; default `{pipelineId}.{aggregation}`."""


Sink = Annotated[PostgresSink | SqliteSink | KafkaSink, Field(discriminator="type")]
