"""What a pipeline must be so that Spark can take over from its workers."""

from __future__ import annotations

from batch.needs import require_runnable
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import KafkaSink


def for_spark(pipeline: Pipeline) -> Pipeline:
    """The pipeline as Spark runs it, without results on Kafka: those come from the workers, which send the newest of each
    window that was touched once they have the pipeline back.

    Raises ConfigError for one that a batch run refuses.
    """
    sinks = tuple(sink for sink in pipeline.sinks if not isinstance(sink, KafkaSink))
    stripped = pipeline.model_copy(update={"sinks": sinks})
    require_runnable(stripped)
    return stripped
