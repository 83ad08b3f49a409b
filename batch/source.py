"""Where to start, from the store's partition rows; and where micro-batches end, by Spark's account or by our own."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import structlog
from pyspark.sql import DataFrame, SparkSession

from batch.fetch import BEGINNING
from tidegate.config.kafka import spark_options
from tidegate.config.pipeline import Pipeline
from tidegate.config.schema import Source
from tidegate.errors import OffsetOutOfRange
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.store.progress import source_topics
from tidegate.store.reading import TopicReader

log = structlog.get_logger(__name__)


def starting_offset(source: Source, tp: TopicPartition, state: PartitionState, low: int, high: int) -> int:
    """The first offset to read, or BEGINNING. `low`, `high`: the log's first offset and the one after its last.

    Raises OffsetOutOfRange when the log no longer has it, unless `onOutOfRange: earliest` accepts the loss.
    """
    if state.upto < 0:
        return BEGINNING
    wanted = state.upto + 1
    if low <= wanted <= high:
        return wanted
    if wanted < low and source.on_out_of_range == "earliest":
        log.error("offset.skipped", topic=tp.topic, partition=tp.partition, wanted=wanted, earliest=low)
        return low
    raise OffsetOutOfRange.of(tp, wanted, low, high)


def starting_offsets(
    source: Source, states: Mapping[TopicPartition, PartitionState], reader: TopicReader
) -> dict[TopicPartition, int]:
    """The first offset to read of each partition. Raises OffsetOutOfRange, BrokerUnavailable."""
    return {tp: starting_offset(source, tp, state, *reader.bounds(tp)) for tp, state in states.items()}


def source_partitions(pipeline: Pipeline, reader: TopicReader) -> list[TopicPartition]:
    """Those that the topics have now. Raises BrokerUnavailable."""
    return [TopicPartition(topic, number) for topic in source_topics(pipeline) for number in reader.partitions(topic)]


def lags(states: Mapping[TopicPartition, PartitionState], reader: TopicReader) -> dict[TopicPartition, int]:
    """How many offsets of each partition's log are not applied yet. Raises BrokerUnavailable."""
    found = {}
    for tp, state in states.items():
        low, high = reader.bounds(tp)
        found[tp] = max(0, high - max(low, state.upto + 1))
    return found


def even_limit(offsets: int, most: int, partitions: int) -> int:
    """How many offsets a micro-batch should have, for as few of them as `most` allows, all of one size.

    Spark gives each partition its proportion, rounded down: with `most` itself one or two offsets of each would be left for one
    micro-batch more. Hence up to one more for each partition.
    """
    batches = max(1, -(-offsets // most))
    return min(most, -(-offsets // batches)) + partitions


def cut(left: Mapping[TopicPartition, tuple[int, int]], most: int | None) -> dict[TopicPartition, int]:
    """Where the next micro-batch ends, if all that is `left` (from the first offset to before the second; never nothing) is to
    take as few of them as `most` offsets allow, all of one size. Each partition gives its proportion."""
    sizes = {tp: end - start for tp, (start, end) in left.items()}
    total = sum(sizes.values())
    size = total if most is None else -(-total // -(-total // most))
    taken = {tp: size * of // total for tp, of in sizes.items()}
    rounded_off = size - sum(taken.values())  # fewer than there are partitions
    for tp in sorted(sizes, key=lambda tp: (taken[tp] - sizes[tp], tp))[:rounded_off]:
        taken[tp] += 1
    return {tp: start + taken[tp] for tp, (start, _) in left.items()}


def planned_stream(
    session: SparkSession, pipeline: Pipeline, starts: Mapping[TopicPartition, int], max_records: int | None
) -> DataFrame:
    """A stream by which Spark plans micro-batches and keeps the account of offsets; nobody reads its records (fetch.py)."""
    assert pipeline.source is not None
    options = {
        **spark_options(pipeline.kafka),
        "kafka.isolation.level": "read_committed",
        "subscribe": ",".join(pipeline.source.topics),
        "startingOffsets": _offsets(starts),
        "failOnDataLoss": "true",
        "groupIdPrefix": f"{pipeline.pipeline_id}-spark",
    }
    if max_records is not None:
        options["maxOffsetsPerTrigger"] = str(max_records)
    return session.readStream.format("kafka").options(**options).load().select("offset")


def planned_ends(checkpoint: Path, batch_id: int) -> dict[TopicPartition, int]:
    """Before which offsets this micro-batch ends, from Spark's own account of it (`offsets/N` of the checkpoint: a version,
    the query's settings, and a line of JSON per source)."""
    line = (checkpoint / "offsets" / str(batch_id)).read_text().splitlines()[-1]
    return {
        TopicPartition(topic, int(number)): end for topic, of in json.loads(line).items() for number, end in of.items()
    }


def _offsets(starts: Mapping[TopicPartition, int]) -> str:
    nested: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for tp, offset in starts.items():
        nested[tp.topic][str(tp.partition)] = offset
    return json.dumps(nested)
