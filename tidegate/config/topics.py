"""The topics of a pipeline's own: where dead letters, late records and results go, and what tidegate keeps for itself.

Topics for people have one point after the pipeline's id (`orders.dlq`), unless the file gives them a name. Topics that
tidegate keeps for itself have two (`orders..changelog.flights`). No pipelineId has two points in a row or one at its end,
and no topic for people has two: so the first two in a name end the id, and no two pipelines, whatever they are called,
share a topic of tidegate's own or write into one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tidegate.config.sinks import KafkaSink

if TYPE_CHECKING:
    from tidegate.config.pipeline import Pipeline

OWN: Final = ".."
"""What only the names of tidegate's own topics have in them."""


def changelog_topic(pipeline_id: str, topic: str) -> str:
    """The state changelog of one topic that is read; its partitions are those of that topic."""
    return f"{pipeline_id}{OWN}changelog.{topic}"


def is_changelog(topic: str) -> bool:
    """Whether the topic is a state changelog, of any pipeline."""
    return f"{OWN}changelog." in topic


def watermarks_topic(pipeline: Pipeline) -> str:
    """What every worker knows of every source partition."""
    return f"{pipeline.pipeline_id}{OWN}watermarks"


def partials_topic(pipeline: Pipeline) -> str:
    """Partials of groups that spread over partitions, keyed by group, for the merge agent."""
    return f"{pipeline.pipeline_id}{OWN}partials"


def dead_letter_topic(pipeline: Pipeline) -> str | None:
    """The dead-letter topic, or None when failed records go elsewhere or nowhere."""
    queue = pipeline.error_handling.dead_letter_queue
    return queue.config.topic or f"{pipeline.pipeline_id}.dlq" if queue.goes_to("kafka") else None


def letters_topic(pipeline: Pipeline) -> str | None:
    """The topic that a batch's transaction writes dead letters to: the dead-letter topic; for those that go to S3 only, one
    of tidegate's own, in which they are safe until their object is there; else None."""
    topic = dead_letter_topic(pipeline)
    if topic is None and pipeline.error_handling.dead_letter_queue.goes_to("s3"):
        return f"{pipeline.pipeline_id}{OWN}dead-letters"
    return topic


def retry_topics(pipeline: Pipeline) -> tuple[str, ...]:
    """The topics in which records wait for a delayed retry, one for each delay."""
    return tuple(
        f"{retry_prefix(pipeline.pipeline_id)}{_short(delay)}" for delay in pipeline.error_handling.retry_topics.delays
    )


def retry_prefix(pipeline_id: str) -> str:
    """How the names of a pipeline's retry topics begin, those of delays that it had once included."""
    return f"{pipeline_id}{OWN}retry."


def _short(ms: int) -> str:
    """`10s`, `90s`, `1h`, `250ms`."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


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
