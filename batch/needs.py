"""What a pipeline must be for this engine."""

from __future__ import annotations

from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import KafkaSink, PostgresSink
from tidegate.errors import ConfigError


def require_runnable(pipeline: Pipeline) -> PostgresSink:
    """The database that holds results and state. Raises ConfigError that names the field which does not fit."""
    if pipeline.missing_to_run:
        missing = pipeline.missing_to_run[0]
        raise ConfigError(
            f"a batch run needs `{missing}`",
            field=missing,
            hint="`tidegate init` writes a complete example to start from",
        )
    for index, sink in enumerate(pipeline.sinks):
        if isinstance(sink, KafkaSink):
            raise ConfigError(
                "a batch run writes no results to Kafka",
                field=f"sinks[{index}].type",
                value=sink.type,
                expected="a postgres sink alone",
                hint="leave this sink out for `tidegate batch run`, or run the pipeline with `tidegate worker`",
            )
    databases = [sink for sink in pipeline.sinks if isinstance(sink, PostgresSink)]
    if len(databases) != 1 or len(pipeline.sinks) != 1:
        raise ConfigError(
            "a batch run keeps its state beside the results, in one PostgreSQL database",
            field="sinks",
            value=", ".join(sink.type for sink in pipeline.sinks) or "none",
            expected="one sink, of type postgres",
            hint="sinks: [{type: postgres, url: '${TIDEGATE_POSTGRES}'}]",
        )
    return databases[0]
