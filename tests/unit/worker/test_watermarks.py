"""The pipeline's watermark: the slowest partition that is not idle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from tests.harness import wait_until
from tidegate.record import TopicPartition
from worker.watermarks import (
    EVERYTHING,
    NEVER,
    SourceWatermark,
    WatermarkBoard,
    decode_watermark,
    encode_watermark,
    pipeline_watermark,
    watermark_key,
)

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics

A, B = TopicPartition("flights", 0), TopicPartition("flights", 1)


def mark(tp: TopicPartition, watermark: int, *, idle: bool = False) -> SourceWatermark:
    return SourceWatermark(tp.topic, tp.partition, watermark, 7, idle)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([mark(A, 5), mark(B, 3)], 3),
        ([mark(A, 5), mark(B, 3, idle=True)], 5),
        ([mark(A, 5, idle=True), mark(B, 3, idle=True)], EVERYTHING),
        ([mark(A, 5), mark(B, NEVER)], NEVER),
        ([mark(A, 5)], None),
        ([], None),
    ],
)
def test_the_slowest_that_is_not_idle_decides(known: list[SourceWatermark], expected: int | None) -> None:
    """Idle ones do not count; all idle: everything may close; one that is unknown: nothing can be said."""
    assert pipeline_watermark({one.tp: one for one in known}, [A, B]) == expected


def test_a_row_comes_back() -> None:
    """As it was written, and under a key of its partition."""
    assert decode_watermark(encode_watermark(mark(B, -1, idle=True))) == mark(B, -1, idle=True)
    assert watermark_key(A) == b"flights-0"


@pytest.mark.slow
@pytest.mark.kafka
def test_the_board_knows_the_newest_of_all(kafka: KafkaTopics) -> None:
    """Whatever worker wrote it, each board has the newest row of every partition soon after."""
    topic, options = kafka.topic(), {"bootstrap.servers": kafka.bootstrap_servers}
    producer = Producer(options)
    board = WatermarkBoard(dict(options), topic)
    board.start()
    try:
        for row in (mark(A, 1), mark(B, 2), mark(A, 3)):
            producer.produce(topic, encode_watermark(row), watermark_key(row.tp))
        producer.flush(10)
        wait_until(lambda: board.known == {A: mark(A, 3), B: mark(B, 2)}, 20, "the newest rows")
    finally:
        board.stop()
