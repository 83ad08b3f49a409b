"""What all publishers of dead letters share, and what each does alone."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from dlq.kind import Kinds
from dlq.letter import Letter, RawRecord
from dlq.publishers import StopPublisher, open_publisher
from tidegate.config.pipeline import Pipeline
from tidegate.errors import PipelineAborted
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import Reason, Rejection
from tidegate.stages.plan import Plan

SOURCE = TopicPartition("flights", 2)
QUEUES: dict[str, dict[str, Any]] = {
    "kafka": {"type": "kafka"},
    "s3": {"type": "s3", "config": {"bucket": "letters"}},
    "log": {"type": "log"},
    "kafka and s3": {"type": ["kafka", "s3"], "config": {"bucket": "letters"}},
    "none": {"type": "none"},
    "not enabled": {"type": "kafka", "enabled": False},
}


def publisher(queue: dict[str, Any], **pipeline: Any) -> Any:
    model = Pipeline.model_validate(
        {"pipelineId": "flights", "errorHandling": {"deadLetterQueue": queue}, **pipeline},
    )
    return open_publisher(Plan(model, pa.schema([]), pa.schema([]), ()))


def letter(offset: int, value: bytes | None = b"v") -> Letter:
    return Letter.of(
        Rejection(offset, Stage.DECODE, (Reason("MalformedJson", "bad"),)),
        RawRecord(SOURCE, offset, 5, b"k", value),
        Kinds(pipeline="flights", schema="flights@0", now_ms=1000),
    )


@pytest.mark.parametrize("queue", QUEUES.values(), ids=QUEUES.keys())
def test_no_dead_letters(queue: dict[str, Any]) -> None:
    """A batch without dead letters has no effect, whatever the publisher."""
    with capture_logs() as logs:
        assert publisher(queue).rows([], SOURCE, 3) == []
    assert logs == []


@pytest.mark.parametrize("queue", QUEUES.values(), ids=QUEUES.keys())
def test_none_disappears(queue: dict[str, Any]) -> None:
    """Every dead letter is in a row (for S3, too), in the log, or stops the pipeline; what `none` throws away is counted."""
    opened, letters = publisher(queue), [letter(1), letter(2)]
    if isinstance(opened, StopPublisher):
        with pytest.raises(PipelineAborted, match="flights-2-1"):
            opened.rows(letters, SOURCE, 3)
        return
    with capture_logs() as logs:
        rows = opened.rows(letters, SOURCE, 3)
    if queue["type"] == "none":
        assert (rows, [(entry["event"], entry["records"], entry["first"]) for entry in logs]) == (
            [],
            [("dlq.discarded", 2, "flights-2-1")],
        )
        return
    written = [dict(row.headers)["tidegate.dlq.id"].decode() for row in rows]
    assert written + [entry["id"] for entry in logs] == ["flights-2-1", "flights-2-2"]


@pytest.mark.parametrize("queue", QUEUES.values(), ids=QUEUES.keys())
def test_rows_are_for_its_topic(queue: dict[str, Any]) -> None:
    """A publisher without a topic never gives rows, and one with a topic gives rows for that topic only."""
    opened = publisher(queue)
    rows = [] if isinstance(opened, StopPublisher) else opened.rows([letter(1)], SOURCE, 3)
    assert {row.topic for row in rows} == ({opened.topic} if opened.topic else set())


@pytest.mark.parametrize("queue", [QUEUES["kafka"], QUEUES["log"]], ids=["kafka", "log"])
def test_any_value_is_taken(queue: dict[str, Any]) -> None:
    """A publisher takes whatever bytes a record had: that a record is broken is why it is here."""
    for value in (None, b"", b"\xff\xfe\x00", b"x" * 2_000_000):
        publisher(queue).rows([letter(1, value)], SOURCE, 3)


def test_kafka_rows() -> None:
    """Kafka rows keep key, value and partition; their timestamp is that of the failure."""
    (row,) = publisher(QUEUES["kafka"]).rows([letter(7)], SOURCE, 3)
    assert (row.topic, row.partition, row.key, row.value, row.timestamp) == ("flights.dlq", 2, b"k", b"v", 1000)
    (elsewhere,) = publisher(QUEUES["kafka"]).rows([letter(7)], SOURCE, 1)
    assert elsewhere.partition == 0


def test_log_shows_a_short_value() -> None:
    """A long value is shown by its beginning and its size, bytes that are no text as escapes."""
    with capture_logs() as logs:
        publisher(QUEUES["log"]).rows([letter(1, b"\xff" + b"x" * 999)], SOURCE, 3)
    assert logs[0]["event"] == "dlq.published"
    assert logs[0]["value"] == "\\xff" + "x" * 199 + "… (1000 bytes)"
    assert (logs[0]["stage"], logs[0]["topic"], logs[0]["partition"]) == ("decode", "flights", 2)


def test_several_places_at_once() -> None:
    """With a list of types each place has every dead letter, and those on Kafka are not doubled for S3."""
    with capture_logs() as logs:
        rows = publisher({"type": ["log", "s3", "kafka"], "config": {"bucket": "letters"}}).rows([letter(1)], SOURCE, 3)
    assert [row.topic for row in rows] == ["flights.dlq"]
    assert [entry["id"] for entry in logs] == ["flights-2-1"]


def test_for_s3_alone_the_topic_is_not_for_people() -> None:
    """Dead letters that go to S3 only wait in a topic of tidegate's own."""
    assert publisher(QUEUES["s3"]).topic == "flights..dead-letters"


def test_no_queue_says_what_to_do() -> None:
    """Without a queue the error names the record, its failure, how many more there are, and the setting that helps."""
    with pytest.raises(PipelineAborted) as error:
        publisher(QUEUES["not enabled"]).rows([letter(1), letter(2)], SOURCE, 3)
    assert "record flights-2-1 failed in decode: MalformedJson: bad (1 more in this batch)" in str(error.value)
    assert "errorHandling.deadLetterQueue" in str(error.value)
