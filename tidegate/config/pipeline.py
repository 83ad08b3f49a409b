"""The pipeline file: one model tree for both engines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tidegate.config.base import Millis, Model
from tidegate.config.errorhandling import ErrorHandling
from tidegate.config.kafka import Kafka
from tidegate.config.schema import Column, Source
from tidegate.config.sinks import Sink
from tidegate.config.stages import Aggregation, Dedupe, EventTime, Handler, LateData, Rule


class Telemetry(Model):
    """Logs, and the HTTP server of /live, /ready and /metrics."""

    host: str = "127.0.0.1"
    port: int = Field(default=6060, ge=0, le=65535)
    """0: any free port; it is printed."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"


class Worker(Model):
    """The Faust worker's limits."""

    max_batch_records: int = Field(default=8192, ge=1)
    max_batch_bytes: int = Field(default=16_777_216, ge=1024)
    state_dir: str = ".tidegate"
    """Local state (RocksDB). It can be deleted at any time: the changelog has it all."""
    drain_timeout: Millis = 20_000
    """On SIGTERM: how long batches in flight may take."""
    stuck_timeout: Millis = 300_000
    """No progress for this long, with lag and not paused: the worker exits with code 70."""


class Pipeline(Model):
    """One pipeline. `source` and `schema` are needed to run it; everything else has a default."""

    pipeline_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    kafka: Kafka = Kafka()
    source: Source | None = None
    schema_: tuple[Column, ...] = Field(default=(), alias="schema")
    event_time: EventTime | None = None
    rules: tuple[Rule, ...] = ()
    dedupe: Dedupe | None = None
    handlers: tuple[Handler, ...] = ()
    aggregations: tuple[Aggregation, ...] = ()
    sinks: tuple[Sink, ...] = ()
    late_data: LateData = LateData()
    error_handling: ErrorHandling = ErrorHandling()
    telemetry: Telemetry = Telemetry()
    worker: Worker = Worker()
