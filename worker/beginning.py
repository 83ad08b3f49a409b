"""Where a pipeline with `startAt: latest` begins: at the end that each partition had when the pipeline first started.

A partition that the topic gets later is read from its own beginning: what was written between its creation and the moment
that a worker noticed it would be skipped without a trace. So "latest" is settled once, for all partitions that there are,
and kept in the watermarks topic, which every worker reads.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import structlog
from confluent_kafka import Producer

from tidegate.errors import BrokerUnavailable
from tidegate.topics import log_ends
from worker.watermarks import Beginning, WatermarkBoard, beginning_row

log = structlog.get_logger(__name__)
_WITHIN = 30.0  # seconds


async def settle(board: WatermarkBoard, confluent: Mapping[str, Any], watermarks: str, topics: Sequence[str]) -> None:
    """Settle where the pipeline begins with each topic, unless that is settled; returns when the board knows it.

    Raises BrokerUnavailable.
    """
    if not await asyncio.to_thread(board.wait, _WITHIN):
        raise BrokerUnavailable(f"the end of {watermarks} was not reached within {_WITHIN:.0f} s: {board.check()}")
    begun = {tp.topic for tp in board.known}  # looked at first: who works has settled, and said so earlier in the log
    missing = [topic for topic in topics if board.beginning(topic) is None]
    if missing:
        await asyncio.to_thread(_settle, board, confluent, watermarks, missing, begun)


def _settle(
    board: WatermarkBoard, confluent: Mapping[str, Any], watermarks: str, topics: Sequence[str], begun: set[str]
) -> None:
    """`begun`: topics that were read before, by a pipeline that settled nothing: what has no state yet came later."""
    producer, writer = Producer({**confluent, "enable.idempotence": True, "acks": "all"}), uuid.uuid4().hex
    for topic in topics:
        beginning = Beginning(topic, {} if topic in begun else log_ends(confluent, topic))
        key, value = beginning_row(beginning, writer)
        producer.produce(watermarks, value, key, partition=0)
        log.info("source.begins", topic=topic, ends=beginning.ends)
    deadline = monotonic() + _WITHIN
    producer.flush(_WITHIN)
    while any(board.beginning(topic) is None for topic in topics):
        if monotonic() > deadline:
            raise BrokerUnavailable(
                f"{watermarks} did not take where {', '.join(topics)} begins within {_WITHIN:.0f} s"
            )
        board.pause(0.05)
