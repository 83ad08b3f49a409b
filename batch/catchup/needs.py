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
    update: dict[str, object] = {"sinks": sinks}
    if sinks != pipeline.sinks and pipeline.event_time is not None:
        # Windows leave the database when all sinks have them, which a catch-up knows nothing of.
        update["event_time"] = pipeline.event_time.model_copy(update={"state_timeout": None})
    stripped = pipeline.model_copy(update=update)
    require_runnable(stripped)
    return stripped
