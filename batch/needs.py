"""What a pipeline must be for this engine."""

from __future__ import annotations

from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import Follower, PostgresSink, SqliteSink
from tidegate.errors import ConfigError


def require_store(pipeline: Pipeline) -> PostgresSink | SqliteSink:
    """The database that has the final say on the results of a worker or a run. Raises ConfigError without one."""
    _require_whole(pipeline)
    for sink in pipeline.sinks:
        if isinstance(sink, PostgresSink | SqliteSink):
            return sink
    raise ConfigError(
        "a backfill amends results in a database",
        field="sinks",
        value=", ".join(sink.type for sink in pipeline.sinks) or "none",
        expected="a sink of type postgres or sqlite",
    )


def require_shadow(pipeline: Pipeline) -> PostgresSink:
    """The database whose results are computed anew. Raises ConfigError without one."""
    sink = require_store(pipeline)
    if isinstance(sink, PostgresSink):
        return sink
    raise ConfigError(
        "windows are computed anew in a PostgreSQL database only",
        field="sinks",
        value=sink.type,
        expected="a sink of type postgres",
    )


def require_runnable(pipeline: Pipeline) -> PostgresSink:
    """The database that holds results and state. Raises ConfigError that names the field which does not fit."""
    _require_whole(pipeline)
    databases = [sink for sink in pipeline.sinks if not isinstance(sink, Follower)]  # one at most
    if not databases or not isinstance(databases[0], PostgresSink):
        raise ConfigError(
            "a batch run keeps its state beside the results, in one PostgreSQL database",
            field="sinks",
            value=", ".join(sink.type for sink in pipeline.sinks) or "none",
            expected="one sink of type postgres, and no other database",
            hint="sinks: [{type: postgres, url: '${TIDEGATE_POSTGRES}'}]",
        )
    return databases[0]


def _require_whole(pipeline: Pipeline) -> None:
    if pipeline.missing_to_run:
        missing = pipeline.missing_to_run[0]
        raise ConfigError(
            f"a batch run needs `{missing}`",
            field=missing,
            hint="`tidegate init` writes a complete example to start from",
        )
