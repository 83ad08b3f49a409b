"""The pipeline's watermark: the slowest partition that is not idle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from tests.harness import wait_until
from tidegate.record import TopicPartition
from tidegate.store.watermark import EVERYTHING
from worker.watermarks import (
    NEVER,
    Beginning,
    SourceWatermark,
    WatermarkBoard,
    beginning_row,
    decode_watermark,
    encode_watermark,
    first_of,
    watermark_key,
    watermark_of_all,
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
        ([mark(A, 5), mark(B, NEVER)], None),
        ([mark(A, 5)], None),
        ([], None),
    ],
)
def test_the_slowest_that_is_not_idle_decides(known: list[SourceWatermark], expected: int | None) -> None:
    """Idle ones do not count; all idle: everything may close; one that is unknown, or has no event time: nothing can be said."""
    assert watermark_of_all({one.tp: one for one in known}, [A, B]) == expected


def test_a_row_comes_back() -> None:
    """As it was written, and under a key of its partition."""
    assert decode_watermark(encode_watermark(mark(B, -1, idle=True))) == mark(B, -1, idle=True)
    assert watermark_key(A) == b"flights-0"


def test_workers_that_begin_at_once_agree() -> None:
    """On the partitions that each of them saw, each from its lowest offset; the rest are read from their beginning."""
    rows = [Beginning("flights", {0: 7, 1: 9}), Beginning("flights", {0: 5, 1: 11, 2: 3})]
    assert first_of(rows) == first_of(rows[::-1]) == {0: 5, 1: 9}
    assert len({beginning_row(rows[0], writer)[0] for writer in ("one", "other")}) == 2


@dataclass
class Wire:
    """A message of the watermarks topic; without key and value, the end of the topic."""

    row: SourceWatermark | None = None
    code: int = KafkaError._PARTITION_EOF

    def error(self) -> KafkaError | None:
        return KafkaError(self.code) if self.row is None else None

    def key(self) -> bytes:
        assert self.row is not None
        return watermark_key(self.row.tp)

    def value(self) -> bytes:
        assert self.row is not None
        return encode_watermark(self.row)


def test_a_board_that_is_half_read_says_nothing() -> None:
    """That all partitions are idle may be news of long ago, which the next row takes back."""
    board = WatermarkBoard({}, "p..watermarks")
    for row in (mark(A, 5, idle=True), mark(B, 3, idle=True)):
        board._take(Wire(row))
        assert watermark_of_all(board.known, [A, B]) is None
        assert board.check() is not None
    board._take(Wire(mark(B, 4)))
    board._take(Wire())
    assert (watermark_of_all(board.known, [A, B]), board.check()) == (4, None)


def test_what_will_not_pass_by_itself_begins_the_reading_anew() -> None:
    """A topic that is gone is an error; a broker that is away is waited for."""
    board = WatermarkBoard({}, "p..watermarks")
    board._take(Wire(code=KafkaError._ALL_BROKERS_DOWN))
    with pytest.raises(KafkaException):
        board._take(Wire(code=KafkaError.TOPIC_AUTHORIZATION_FAILED))


def test_a_board_that_cannot_read_is_not_ready() -> None:
    """It says why, goes on trying, and forgets what it knew: it will read everything anew, older rows first."""
    board = WatermarkBoard({"no.such.setting": 1}, "p..watermarks")
    board._take(Wire(mark(A, 1)))
    board._take(Wire())
    assert board.known == {A: mark(A, 1)}
    board.start()
    try:
        wait_until(lambda: "no.such.setting" in (board.check() or ""), 20, "not ready")
        assert board.known == {}
    finally:
        board.stop()


def test_a_board_that_was_never_started_can_be_stopped() -> None:
    """A worker that fails while it prepares its topics takes down what there is."""
    WatermarkBoard({}, "p..watermarks").stop()


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
