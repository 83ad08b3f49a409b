"""Names of everything a pipeline has in Kafka, in one place; and which topics must exist, with how many partitions."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import KafkaSink
from tidegate.stages.plan import AggregationPlan, Plan

COMPACTED = {"cleanup.policy": "compact"}
FOREVER_KEPT = {"retention.ms": "-1"}


def changelog_topic(pipeline: Pipeline, source: str) -> str:
    """State of one source topic's partitions, partition for partition."""
    return f"{pipeline.pipeline_id}-{source}-changelog"


def watermarks_topic(pipeline: Pipeline) -> str:
    return f"{pipeline.pipeline_id}-watermarks"


def partials_topic(pipeline: Pipeline) -> str:
    """Partials of groups that spread over partitions, keyed by group, for the merge agent."""
    return f"{pipeline.pipeline_id}-partials"


def kafka_sink(pipeline: Pipeline) -> KafkaSink | None:
    return next((sink for sink in pipeline.sinks if isinstance(sink, KafkaSink)), None)


def results_topic(pipeline: Pipeline, aggregation: str) -> str | None:
    """Where an aggregation's results go, or None without a Kafka sink."""
    sink = kafka_sink(pipeline)
    return None if sink is None else sink.topics.get(aggregation, f"{pipeline.pipeline_id}.{aggregation}")


def merged_aggregations(plan: Plan) -> list[AggregationPlan]:
    """Aggregations whose totals on Kafka need the merge agent."""
    if kafka_sink(plan.pipeline) is None:
        return []
    return [aggregation for aggregation in plan.aggregations if aggregation.spreads]


def internal_topics(plan: Plan, partitions: Mapping[str, int]) -> dict[str, tuple[int, dict[str, str]]]:
    """Topic → (partitions, configuration) of everything this pipeline writes, given its source topics' partition counts.

    The partials topic is absent: it never grows (see `merge_topics`), since a group must stay in its partition.
    """
    pipeline, most = plan.pipeline, max(partitions.values())
    topics: dict[str, tuple[int, dict[str, str]]] = {watermarks_topic(pipeline): (1, COMPACTED)}
    for source, count in partitions.items():
        topics[changelog_topic(pipeline, source)] = (count, COMPACTED)
    for aggregation in plan.aggregations:
        results = results_topic(pipeline, aggregation.name)
        if results is not None:
            topics[results] = (most, COMPACTED)
    return topics


def merge_topics(plan: Plan, partitions: int) -> dict[str, tuple[int, dict[str, str]]]:
    """The partials topic and its changelog. They keep the partition count they were made with: groups are spread by hash."""
    if not merged_aggregations(plan):
        return {}
    partials = partials_topic(plan.pipeline)
    return {topic: (partitions, COMPACTED) for topic in (partials, changelog_topic(plan.pipeline, partials))}
