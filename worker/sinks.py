"""Which sinks of the file are a worker's: one database and one topic for each aggregation; the others it leaves to Spark."""

from __future__ import annotations

import structlog

from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import KafkaSink, LakeSink, PostgresSink, SqliteSink
from tidegate.errors import ConfigError
from tidegate.stages.plan import Plan
from tidegate.store import open_store
from tidegate.store.base import Store

log = structlog.get_logger(__name__)


def open_database(plan: Plan) -> Store | None:
    """The store of the pipeline's database, of which there is one at most (the file is refused otherwise)."""
    sinks = [sink for sink in plan.pipeline.sinks if isinstance(sink, PostgresSink | SqliteSink)]
    return open_store(plan, sinks[0]) if sinks else None


def require_no_complete(pipeline: Pipeline) -> None:
    """Raises ConfigError for a sink of the worker's that wants all results at once: it has those of its own partitions."""
    for index, sink in enumerate(pipeline.sinks):
        if isinstance(sink, KafkaSink) and sink.output_mode == "complete":
            raise ConfigError(
                "a worker sends what has changed, never all results there are",
                field=f"sinks[{index}].outputMode",
                value="complete",
                expected="update or append",
                hint="`complete` is for `tidegate batch run`",
            )


def leave_to_spark(pipeline: Pipeline) -> None:
    """Say whose work the lakes are: a run brings them up to what the database has."""
    if lakes := [sink.name for sink in pipeline.sinks if isinstance(sink, LakeSink)]:
        log.info("sinks.left_to_spark", sinks=lakes, hint="`tidegate batch run` writes what they lack")
