"""The worker's own topics, and which topics must exist, with how many partitions. Topics for people are named in
tidegate/config/topics.py."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import result_topics
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.store.rows import changelog_topic

COMPACTED = {"cleanup.policy": "compact"}


def watermarks_topic(pipeline: Pipeline) -> str:
    return f"{pipeline.pipeline_id}-watermarks"


def partials_topic(pipeline: Pipeline) -> str:
    """Partials of groups that spread over partitions, keyed by group, for the merge agent."""
    return f"{pipeline.pipeline_id}-partials"


def merged_aggregations(plan: Plan) -> list[AggregationPlan]:
    """Aggregations whose totals on Kafka need the merge agent."""
    written = result_topics(plan.pipeline)
    return [aggregation for aggregation in plan.aggregations if aggregation.spreads and aggregation.name in written]


def internal_topics(plan: Plan, partitions: Mapping[str, int]) -> dict[str, tuple[int, dict[str, str]]]:
    """Topic → (partitions, configuration) of everything this pipeline writes, given the partitions of its sources.

    The partials topic is absent: it never grows (see `merge_topics`), since a group must stay in its partition.
    """
    pipeline, most = plan.pipeline, max(partitions.values())
    topics: dict[str, tuple[int, dict[str, str]]] = {watermarks_topic(pipeline): (1, COMPACTED)}
    for source, count in partitions.items():
        topics[changelog_topic(pipeline.pipeline_id, source)] = (count, COMPACTED)
    topics |= dict.fromkeys(result_topics(pipeline).values(), (most, COMPACTED))
    return topics


def merge_topics(plan: Plan, partitions: int) -> dict[str, tuple[int, dict[str, str]]]:
    """The partials topic and its changelog. They keep the partitions they were made with: groups go by hash."""
    if not merged_aggregations(plan):
        return {}
    partials = partials_topic(plan.pipeline)
    return dict.fromkeys((partials, changelog_topic(plan.pipeline.pipeline_id, partials)), (partitions, COMPACTED))
