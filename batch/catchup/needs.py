"""What a pipeline must be so that Spark can take over from its workers."""

from __future__ import annotations

from batch.needs import require_runnable
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import Follower


def for_spark(pipeline: Pipeline) -> Pipeline:
    """The pipeline as Spark runs it, with its database alone. Results on Kafka come from the workers, which send the newest of
    each window that was touched once they have the pipeline back; other sinks get what they lack from the next batch run.

    Raises ConfigError for one that a batch run refuses.
    """
    sinks = tuple(sink for sink in pipeline.sinks if not isinstance(sink, Follower))
    stripped = pipeline.model_copy(update={"sinks": sinks})
    require_runnable(stripped)
    return stripped
