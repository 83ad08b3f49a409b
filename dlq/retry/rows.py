"""A deferred record as it waits in a retry topic, and as it goes back to its source topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dlq import headers as h
from dlq.collect import milliseconds, pick
from dlq.dialects import last_values
from dlq.dialects.base import number, text
from dlq.earlier import is_failure_header, read_earlier
from dlq.encoding import iso_utc
from dlq.letter import RawRecord
from dlq.limits import MAX_MESSAGE_BYTES, cut_text, well_formed
from dlq.placement import target_partition
from tidegate.clock import Clock
from tidegate.config.topics import retry_topics
from tidegate.headers import RETRY_ATTEMPT, RETRY_BEHIND, RETRY_FROM, RETRY_OF, Headers
from tidegate.record import OutRow, TopicPartition, record_id
from tidegate.stages.batch import BatchResult, Deferral
from tidegate.stages.plan import Plan

# What says how it waits: taken off when it goes back.
_WAITING = frozenset({h.RETRY_DUE, h.RETRY_TOPIC, h.RETRY_PARTITION, h.ERROR_TYPE, h.ERROR_MESSAGE, h.STAGE})


def retry_rows(result: BatchResult, plan: Plan, clock: Clock, counts: Mapping[str, int]) -> list[OutRow]:
    """A row for each of `result.deferred`. `counts`: partitions of the retry topics."""
    if not result.deferred:
        return []
    topics, now = retry_topics(plan.pipeline), milliseconds(clock)
    delays = plan.pipeline.error_handling.retry_topics.delays
    records = pick(result.raw, [one.rejection.offset for one in result.deferred])
    rows = []
    for one, record in zip(result.deferred, records, strict=True):
        topic = topics[one.rung]
        headers = _headers(one, record, now, now + delays[one.rung])
        partition = target_partition(record.tp, record.key, counts.get(topic, 1))
        rows.append(OutRow(topic, partition, record.key, record.value, headers, now))
    return rows


def _headers(one: Deferral, record: RawRecord, now: int, due: int) -> Headers:
    """The record's own headers, behind those that say what happened and how it goes on."""
    values = last_values(record.headers)
    earlier, first = read_earlier(values), one.rejection.reasons[0]
    origin = earlier.origin
    topic, partition, offset = (
        (origin.topic, origin.partition, origin.offset) if origin else (*record.tp, record.offset)
    )
    failed = now if earlier.first_failure is None and one.behind is None else earlier.first_failure
    headers: Headers = [
        (RETRY_OF, values.get(RETRY_OF) or record_id(record.tp, record.offset).encode()),
        (RETRY_ATTEMPT, b"%d" % one.tries),
        (RETRY_FROM, b"%d" % record.offset),
        (h.RETRY_DUE, b"%d" % due),
        (h.RETRY_TOPIC, record.tp.topic.encode()),
        (h.RETRY_PARTITION, b"%d" % record.tp.partition),
        (h.STAGE, one.rejection.stage.value.encode()),
        (h.ERROR_TYPE, well_formed(first.error_type).encode()),
        (h.ERROR_MESSAGE, cut_text(well_formed(first.message), MAX_MESSAGE_BYTES).encode()),
        (h.ORIGIN_TOPIC, topic.encode()),
        (h.ORIGIN_PARTITION, b"%d" % partition),
        (h.ORIGIN_OFFSET, b"%d" % offset),
    ]
    if failed is not None:
        headers.append((h.FAILED_FIRST, iso_utc(failed).encode()))
    if one.behind is not None:
        headers.append((RETRY_BEHIND, b"%d" % one.behind))
    timestamp = record.timestamp if origin is None else origin.timestamp
    if timestamp is not None:
        headers.append((h.ORIGIN_TIMESTAMP, b"%d" % timestamp))
    return headers + [header for header in record.headers if not is_failure_header(header[0])]


class Waiting(NamedTuple):
    """What a record in a retry topic says. `due`: ms since the epoch."""

    due: int
    source: TopicPartition


def waiting(headers: Headers) -> Waiting | None:
    """None for a record that no worker of ours has put there."""
    values = last_values(headers)
    due, topic = number(values, h.RETRY_DUE), text(values, h.RETRY_TOPIC)
    partition = number(values, h.RETRY_PARTITION)
    if due is None or topic is None or partition is None:
        return None
    return Waiting(due, TopicPartition(topic, partition))


def going_back(headers: Headers) -> Headers:
    """The headers of the record that goes back: which it is, and the how manieth attempt it is."""
    return [header for header in headers if header[0] not in _WAITING]
