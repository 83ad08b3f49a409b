"""The pipeline file: one model tree for both engines."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, model_validator

from tidegate.config.base import Millis, Model, Whole, refuse
from tidegate.config.consistency import problems_of
from tidegate.config.deadletters import DeadLetters
from tidegate.config.errorhandling import ErrorHandling
from tidegate.config.fallback import Fallback
from tidegate.config.kafka import Kafka
from tidegate.config.schema import Column, Source
from tidegate.config.sinks import Sink
from tidegate.config.stages import Aggregation, Dedupe, EventTime, Handler, LateData, Rule

ID_PATTERN: Final = r"^[A-Za-z0-9]([.]?[A-Za-z0-9_-])*$"


class Telemetry(Model):
    """Logs, and the HTTP server of /live, /ready and /metrics."""

    host: str = "127.0.0.1"
    port: Whole = Field(default=6060, ge=0, le=65535)
    """0: any free port; it is printed."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"


class Worker(Model):
    """The Faust worker's limits."""

    max_batch_records: Whole = Field(default=32_768, ge=1)
    max_batch_bytes: Whole = Field(default=16_777_216, ge=1024)
    commit_interval: Millis = 100
    """A partition commits so often at most: the few records that come meanwhile go with the next commit, and many at once
    wait for nothing. Less makes results come earlier at a low rate, more saves processor time; 0 waits never."""
    state_dir: str = ".tidegate"
    """Local state (RocksDB). It can be deleted at any time: the changelog has it all."""
    drain_timeout: Millis = 20_000
    """On SIGTERM: how long batches in flight may take. The process is gone 8 seconds later at the latest, with code 70 and
    the partitions' names if something did not end (a handler that never comes back, say). Nothing is lost by that. A run on Spark
    gives up its micro-batch then, and is gone 30 seconds later at the latest."""
    stuck_timeout: Millis = 300_000
    """One partition without a step forward for this long, with work and not paused, or while its state is restored: the
    worker exits with code 70 and names it."""


class Pipeline(Model):
    """One pipeline. `source` and `schema` are needed to run it; everything else has a default."""

    pipeline_id: str = Field(pattern=ID_PATTERN, max_length=100)
    """The name of the pipeline: of its consumer group, and the beginning of its topics' names. No two points in a row:
    they are in the names of tidegate's own topics."""
    kafka: Kafka = Kafka()
    source: Source | None = None
    schema_: tuple[Column, ...] = Field(default=(), alias="schema")
    """The fields of a record's value."""
    event_time: EventTime | None = None
    """Needed by aggregations and dedupe."""
    rules: tuple[Rule, ...] = ()
    """What a record must be like."""
    dedupe: Dedupe | None = None
    handlers: tuple[Handler, ...] = ()
    """Python steps, in order."""
    aggregations: tuple[Aggregation, ...] = ()
    sinks: tuple[Sink, ...] = ()
    late_data: LateData = LateData()
    error_handling: ErrorHandling = ErrorHandling()
    dead_letters: DeadLetters = DeadLetters()
    telemetry: Telemetry = Telemetry()
    worker: Worker = Worker()
    fallback: Fallback = Fallback()

    @model_validator(mode="before")
    @classmethod
    def _cluster_of_dead_letters(cls, value: Any) -> Any:
        """Dead letters stay on the pipeline's cluster: if `kafka` does not name it, their `bootstrap.servers` does."""
        servers = value
        for names in _DEAD_LETTER_SERVERS:
            servers = _get(servers, names)
        kafka = _get(value, ("kafka",))
        named_elsewhere = kafka is not None and _get(kafka, ("bootstrapServers", "bootstrap_servers")) is not None
        if not isinstance(value, dict) or not isinstance(servers, str) or named_elsewhere:
            return value
        if kafka is not None and not isinstance(kafka, dict):
            return value
        return {**value, "kafka": {**(kafka or {}), "bootstrapServers": servers}}

    @model_validator(mode="after")
    def _consistent(self) -> Pipeline:
        refuse(*problems_of(self))
        return self

    @property
    def missing_to_run(self) -> tuple[str, ...]:
        """The parts, as the file names them, that this pipeline needs before it can run."""
        needed = {"source": self.source is not None, "schema": bool(self.schema_)}
        return tuple(part for part, given in needed.items() if not given)

    def reads(self, topic: str) -> bool:
        """Whether the file names this topic as a source. What the state has of another one stays, and nothing waits for it."""
        return self.source is None or topic in self.source.topics


_DEAD_LETTER_SERVERS: Final = (
    ("errorHandling", "error_handling"),
    ("deadLetterQueue", "dead_letter_queue"),
    ("config",),
    ("bootstrap.servers", "bootstrap_servers"),
)


def _get(container: Any, names: tuple[str, ...]) -> Any:
    """The first of `names` that a mapping or a model has, else None."""
    for name in names:
        if isinstance(container, dict) and name in container:
            return container[name]
        if isinstance(container, Model) and name in type(container).model_fields:
            return getattr(container, name)
    return None
