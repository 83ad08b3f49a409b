"""What a run tells a Prometheus of its micro-batches, and where."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping

import pytest

from batch.observe import Measuring, measured
from batch.report import Report
from batch.sink import Commit
from tests.unit.worker.pieces import TP, small_plan
from tidegate.clock import ManualClock
from tidegate.errors import BrokerUnavailable, ConfigError, DependencyError
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState

OTHER = TopicPartition("flights", 1)


class Heard:
    """A watch that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def starting(self, what: str) -> None:
        self.told.append(what)

    def committed(self, report: Report, commit: Commit, lag: int | None) -> None:
        self.told.append(lag)

    def published(self, sink: str, results: Mapping[str, int]) -> None:
        self.told.append((sink, results))

    def timed_out(self, windows: Mapping[str, int]) -> None:
        self.told.append(windows)

    def waiting(self, error: DependencyError, seconds: float) -> None:
        self.told.append(seconds)


def commit(*, lags: dict[TopicPartition, int] | None) -> Commit:
    ledgers = {TP: Ledger(read=10, accepted=7, dead_lettered=1, late=2), OTHER: Ledger(read=5, accepted=5)}
    states = {TP: PartitionState(9, 1_700_000_061_000), OTHER: PartitionState(4)}
    return Commit(ledgers, 1, states, {"totals": 3}, lags, 0.3)


def lines(measuring: Measuring) -> set[str]:
    return set(measuring.reporter.render()[0].decode().splitlines())


def test_a_micro_batch_as_metrics() -> None:
    """Records by outcome add up over micro-batches and partitions; lag, watermark and time are those of the last one. What
    another watch wants to know it is told as well."""
    heard = Heard()
    measuring = Measuring(small_plan().pipeline, heard, ManualClock(1_700_000_000.0))
    measuring.starting("Spark")
    measuring.committed(Report("p"), commit(lags={TP: 40, OTHER: 2}), 42)
    measuring.committed(Report("p"), commit(lags=None), None)
    for _ in range(2):
        measuring.published("kafka", {"totals": 4})
    measuring.timed_out({"totals": 4})
    measuring.waiting(BrokerUnavailable("away"), 1.5)
    assert heard.told == ["Spark", 42, None, *[("kafka", {"totals": 4})] * 2, {"totals": 4}, 1.5]
    assert lines(measuring) >= {
        'tidegate_records_consumed_total{topic="flights"} 30.0',
        'tidegate_records_processed_total{outcome="accepted",topic="flights"} 24.0',
        'tidegate_records_processed_total{outcome="dead_lettered",topic="flights"} 2.0',
        'tidegate_records_processed_total{outcome="late",topic="flights"} 4.0',
        'tidegate_late_records_total{topic="flights"} 4.0',
        'tidegate_engine_active{engine="batch"} 1.0',
        'tidegate_batch_rows_total{aggregation="totals"} 6.0',
        'tidegate_results_published_total{aggregation="totals",sink="kafka"} 8.0',
        'tidegate_windows_timed_out_total{aggregation="totals"} 4.0',
        'tidegate_batch_duration_seconds_count{topic="flights"} 2.0',
        'tidegate_consumer_lag_records{consumergroup="p",partition="0",topic="flights"} 40.0',
        'tidegate_consumer_lag_records{consumergroup="p",partition="1",topic="flights"} 2.0',
        'tidegate_watermark_timestamp_seconds{partition="0",topic="flights"} 1.70000006e+09',
    }


def test_ready_while_it_is_at_work() -> None:
    """Not before the first micro-batch is committed, and not while it waits for a dependency."""
    measuring = Measuring(small_plan().pipeline, Heard(), ManualClock())
    assert measuring.health.ready().reasons == {"run": "starting"}
    measuring.committed(Report("p"), commit(lags=None), None)
    assert measuring.health.ready().fine
    measuring.waiting(BrokerUnavailable("away"), 1.5)
    assert measuring.health.ready().reasons == {"run": "waits 1.5 s: away"}
    assert measuring.health.live().fine


def test_it_is_served_while_the_block_runs() -> None:
    """Without a port nothing is served; one that is taken is refused by the name of its option."""
    pipeline, heard = small_plan().pipeline, Heard()
    with measured(pipeline, heard, None) as watch:
        assert watch is heard
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="--metrics-port"), measured(pipeline, heard, port):
            pass
    with measured(pipeline, heard, port), pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5)
    assert json.loads(answer.value.read())["reasons"] == {"run": "starting"}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5)
