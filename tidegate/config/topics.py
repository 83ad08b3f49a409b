"""The topics of a pipeline's own: where dead letters, late records and results go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.config.sinks import KafkaSink

if TYPE_CHECKING:
    from tidegate.config.pipeline import Pipeline


def dead_letter_topic(pipeline: Pipeline) -> str | None:
    """The dead-letter topic, or None when failed records go elsewhere or nowhere."""
    queue = pipeline.error_handling.dead_letter_queue
    return queue.config.topic or f"{pipeline.pipeline_id}.dlq" if queue.takes_records else None


def indexed_topics(pipeline: Pipeline) -> tuple[str, ...]:
    """Every dead-letter topic that the index reads: the pipeline's own, then those of other tools, each once."""
    own = dead_letter_topic(pipeline)
    return tuple(dict.fromkeys([*([] if own is None else [own]), *pipeline.dead_letters.topics]))


def late_topic(pipeline: Pipeline) -> str | None:
    """The topic of late records; None when the strategy is another than `separateStream`."""
    if pipeline.late_data.strategy != "separateStream":
        return None
    return pipeline.late_data.topic or f"{pipeline.pipeline_id}.late"


def result_topics(pipeline: Pipeline) -> dict[str, str]:
    """Aggregation → topic of its results; empty without a Kafka sink."""
    return {
        aggregation.name: sink.topics.get(aggregation.name, f"{pipeline.pipeline_id}.{aggregation.name}")
        for sink in pipeline.sinks
        if isinstance(sink, KafkaSink)
        for aggregation in pipeline.aggregations
    }
