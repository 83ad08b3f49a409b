"""Which topics must exist, with how many partitions and which settings. Their names: tidegate/config/topics.py."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.config.topic_settings import RESULTS, STATE, WATERMARKS
from tidegate.config.topics import (
    changelog_topic,
    late_topic,
    letters_topic,
    partials_topic,
    result_topics,
    retry_topics,
    watermarks_topic,
)
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.topics import FOREVER_KEPT, TopicSpec


def merged_aggregations(plan: Plan) -> list[AggregationPlan]:
    """Aggregations whose totals on Kafka need the merge agent."""
    written = result_topics(plan.pipeline)
    return [aggregation for aggregation in plan.aggregations if aggregation.spreads and aggregation.name in written]


def needed_topics(plan: Plan, partitions: Mapping[str, int], partials: int) -> list[TopicSpec]:
    """Everything that this pipeline writes to, given the partitions of its sources and those of the partials topic.

    That one and its changelog keep the partitions that they were made with: groups go to them by hash.
    """
    pipeline, most = plan.pipeline, max(partitions.values())
    specs = [TopicSpec(watermarks_topic(pipeline), 1, WATERMARKS, holds_state=True)]
    for source, count in partitions.items():
        specs.append(TopicSpec(changelog_topic(pipeline.pipeline_id, source), count, STATE, holds_state=True))
    if merged_aggregations(plan):
        merged = partials_topic(pipeline)
        for topic in (merged, changelog_topic(pipeline.pipeline_id, merged)):
            specs.append(TopicSpec(topic, partials, STATE, holds_state=True))
    specs += [TopicSpec(topic, most, RESULTS) for topic in result_topics(pipeline).values()]
    failures = (letters_topic(pipeline), late_topic(pipeline), *retry_topics(pipeline))
    return specs + [TopicSpec(topic, most, FOREVER_KEPT) for topic in failures if topic is not None]
