"""Results on Kafka, as a worker writes them: the same keys, documents and topics, and of each key the same partition."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from batch.producer import ConfirmedProducer
from tidegate.config.kafka import confluent_options
from tidegate.config.sinks import KafkaSink
from tidegate.config.topic_settings import RESULTS, STATE
from tidegate.config.topics import partials_topic, result_topics
from tidegate.errors import ConfigError
from tidegate.record import OutRow
from tidegate.results import ResultDocuments
from tidegate.rowkeys import MERGE, aggregation_prefix, encode_keys, merge_partition
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.topics import TopicSpec, ensure_topics, partition_counts


class KafkaTarget:
    """A pipeline's Kafka sink. A repeat is a record with the same key and a revision that is not smaller; what was taken away has
    no value, so that compaction forgets it."""

    def __init__(self, plan: Plan, sink: KafkaSink, partitions: int) -> None:
        """`partitions`: of the topic of partials."""
        self.name = sink.name
        self._topics, self._partitions = result_topics(plan.pipeline), partitions
        self._documents = {aggregation.name: ResultDocuments(aggregation) for aggregation in plan.aggregations}
        self._producer = ConfirmedProducer(confluent_options(plan.pipeline.kafka))

    def write(self, aggregation: AggregationPlan, version: int, results: pa.Table, *, complete: bool) -> None:
        """Raises BrokerUnavailable (some may be written), RowTooLarge."""
        keys, values = self._documents[aggregation.name].encode(results)
        gone = pc.equal(results["records"], 0).to_pylist()
        places = self._spread(aggregation, results) if aggregation.spreads else _sources(results)
        topic = self._topics[aggregation.name]
        self._producer.write(
            OutRow(topic, place, key, None if is_gone else value, [])
            for place, key, value, is_gone in zip(places, keys, values, gone, strict=True)
        )

    def close(self) -> None:
        """Everything was confirmed as it was written."""

    def _spread(self, aggregation: AggregationPlan, results: pa.Table) -> list[int]:
        """Where the merge agent of the group is."""
        groups = [results[column.name] for column in aggregation.group]
        keys = encode_keys(aggregation_prefix(MERGE, aggregation.name), results["window_end"], groups)
        return [merge_partition(key, self._partitions) for key in keys]


def open_kafka(plan: Plan, sink: KafkaSink, sources: Mapping[str, int]) -> KafkaTarget:
    """The target, its topics made if they are missing. `sources`: partitions of each source topic.

    Among them is the topic of partials, which only workers use, where groups spread: how many partitions it was made with says
    where a group's results go, whoever writes them and however the source grows.

    Raises ConfigError, BrokerUnavailable.
    """
    options, most, topics = confluent_options(plan.pipeline.kafka), max(sources.values()), result_topics(plan.pipeline)
    partials = partials_topic(plan.pipeline)

    async def reach() -> int:
        try:
            count = (await partition_counts(options, [partials]))[partials]
        except ConfigError:  # it does not exist yet
            count = most
        specs = [TopicSpec(topic, most, RESULTS) for topic in topics.values()]
        if any(aggregation.spreads for aggregation in plan.aggregations):
            specs.append(TopicSpec(partials, count, STATE, holds_state=True))
        if specs:
            await ensure_topics(options, specs)
        return count

    return KafkaTarget(plan, sink, asyncio.run(reach()))


def _sources(results: pa.Table) -> list[int]:
    """The source partition of each result, which a group that does not spread has one of; two after the topic has grown, and
    then whichever is the newer one."""
    return [max(int(name.rpartition("-")[2]) for name in json.loads(text)) for text in results["upto"].to_pylist()]
