"""The live view shows what the worker exports, and nothing else."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tidegate.clock import ManualClock
from tidegate.demo.metrics import PartitionProgress, Snapshot, parse_metrics, read_metrics
from tidegate.demo.view import LiveView, Progress, RateMeter, draw, one_line
from tidegate.telemetry.metric_defs import (
    BREAKER_STATE,
    CONSUMER_LAG,
    DLQ_RECORDS,
    RECORDS_PROCESSED,
    WATERMARK,
    WINDOWS_CLOSED,
    WINDOWS_OPEN,
)
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter


@pytest.fixture
def snapshot() -> Snapshot:
    """What the view reads from metrics that went through the real reporter."""
    reporter = PrometheusReporter()
    metrics = Metrics(reporter)
    for outcome, count in (("accepted", 90), ("late", 7), ("dead_lettered", 3)):
        metrics.inc(RECORDS_PROCESSED, {"topic": "departures", "outcome": outcome}, count)
    metrics.inc(RECORDS_PROCESSED, {"topic": "another", "outcome": "accepted"}, 1000)
    for partition, lag in (("10", 5), ("2", 0)):
        metrics.set(CONSUMER_LAG, {"consumergroup": "flights", "topic": "departures", "partition": partition}, lag)
    metrics.set(WATERMARK, {"topic": "departures", "partition": "2"}, 1_357_035_420)
    metrics.set(WINDOWS_OPEN, {"aggregation": "hourly"}, 4)
    metrics.inc(WINDOWS_CLOSED, {"aggregation": "hourly"}, 40)
    metrics.inc(DLQ_RECORDS, {"topic": "departures", "stage": "decode", "error_class": "WrongType"}, 3)
    for state in ("closed", "open", "half_open", "disabled"):
        metrics.set(BREAKER_STATE, {"breaker": "store", "state": state}, float(state == "half_open"))
    return parse_metrics(reporter.render()[0].decode(), "departures")


def test_the_numbers_are_those_of_the_source_topic(snapshot: Snapshot) -> None:
    """Other topics do not count; partitions are in numeric order."""
    assert snapshot.processed == {"accepted": 90, "late": 7, "dead_lettered": 3}
    assert snapshot.records == 100
    assert snapshot.lag == 5
    assert list(snapshot.partitions.items()) == [
        (2, PartitionProgress(0, 1_357_035_420.0)),
        (10, PartitionProgress(5, None)),
    ]
    assert snapshot.windows_open == {"hourly": 4}
    assert snapshot.windows_closed == {"hourly": 40}
    assert snapshot.dead_letters == {("decode", "WrongType"): 3}
    assert snapshot.breakers == {"store": "half_open"}


def test_the_picture_has_every_part(snapshot: Snapshot) -> None:
    """Rate, lag, watermark per partition, windows, late and dead letters by reason, breaker state."""
    console = Console(file=io.StringIO(), width=160)
    console.print(draw(Progress(120, 336_776, snapshot), rate=4567.8, elapsed=12.3))
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue()
    for part in (
        "4,568 records/s", "lag 5", "produced 120 of 336,776", "01 Jan 2013 10:17", "hourly", "40", "late",
        "dead-lettered", "decode: WrongType", "store", "half-open",
    ):  # fmt: skip
        assert part in drawn


def test_who_has_the_pipeline_is_said_where_that_changes(snapshot: Snapshot) -> None:
    """In the picture and in the line; and without a worker there is nothing of windows."""
    console = Console(file=io.StringIO(), width=100)
    gone = Snapshot(processed=snapshot.processed, partitions=snapshot.partitions)
    console.print(draw(Progress(120, 336_776, gone, "nobody"), rate=0, elapsed=12.3))
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue()
    assert "who has the pipeline: nobody" in drawn
    assert "dead-lettered" in drawn
    assert "windows" not in drawn
    assert one_line(Progress(120, 200, gone, "Spark"), rate=0, elapsed=3).plain.endswith("with Spark")


def test_what_is_told_stays_above_the_picture() -> None:
    """With the seconds since the start."""
    clock, console = ManualClock(), Console(file=io.StringIO(), width=200)
    with LiveView(console, clock) as view:
        clock.advance(12)
        view.tell("the worker is gone")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "  12 s  the worker is gone\n"


def test_one_line_says_what_matters(snapshot: Snapshot) -> None:
    """For logs, where nothing can be drawn in place."""
    line = one_line(Progress(120, 200, snapshot), rate=50, elapsed=3).plain
    assert line == "   3 s  produced 120 of 200  processed 100  50 records/s  lag 5  late 7  dead letters 3"


def test_without_a_terminal_a_line_comes_every_five_seconds() -> None:
    """A log is not flooded."""
    clock, console = ManualClock(), Console(file=io.StringIO(), width=200)
    with LiveView(console, clock) as view:
        for _ in range(41):
            view.update(Progress(0, 10, Snapshot()))
            clock.advance(0.25)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("\n") == 3  # at 0, 5 and 10 s


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """A burst long ago no longer counts."""
    clock = ManualClock()
    meter = RateMeter(clock)
    assert meter.add(0) == 0
    clock.advance(1)
    assert meter.add(1000) == 1000
    for _ in range(5):
        clock.advance(1)
        rate = meter.add(1000)
    assert rate == 0


def test_a_worker_that_does_not_answer_gives_no_numbers() -> None:
    """The view keeps the last ones."""
    assert read_metrics("http://127.0.0.1:9/metrics", "departures") is None
