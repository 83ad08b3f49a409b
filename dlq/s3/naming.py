"""The name of an object: where and when its dead letters failed, and which records of the topic it has.

`prefix/date=2026-01-31/hour=12/pipeline=orders[/stage=decode]/orders.dlq-00002-00000000000000000400-00000000000000000499.parquet`
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from dlq.envelope import Envelope
from tidegate.record import TopicPartition

SUFFIXES = {"parquet": ".parquet", "json": ".jsonl"}


class Cut(NamedTuple):
    """Records of one partition of the topic that are written together, by their first and last offset."""

    tp: TopicPartition
    first: int
    last: int


def folder(envelope: Envelope, prefix: str, *, by_stage: bool) -> str:
    """Where a dead letter belongs, by the time of its last failure (UTC)."""
    try:
        moment = datetime.fromtimestamp(envelope.last_failure // 1000, UTC)
        when = f"date={moment:%Y-%m-%d}/hour={moment:%H}"
    except (ValueError, OverflowError, OSError):  # a header that no calendar has
        when = "date=unknown/hour=unknown"
    parts = [prefix.strip("/"), when, f"pipeline={quote(envelope.pipeline, safe='')}"]
    parts += [f"stage={quote(envelope.stage, safe='')}"] if by_stage else []
    return "/".join(part for part in parts if part)


def object_name(folder: str, cut: Cut, form: str) -> str:
    """The same cut has the same names, whoever writes it and how often."""
    return f"{folder}/{cut.tp.topic}-{cut.tp.partition:05d}-{cut.first:020d}-{cut.last:020d}{SUFFIXES[form]}"
