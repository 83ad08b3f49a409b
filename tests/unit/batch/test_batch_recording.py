"""What a run says of itself in the database, on SQLite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from batch.catchup.recording import CatchupRecording
from batch.catchup.run import CatchupReport
from batch.report import Report
from batch.runs import recording as recording_module
from batch.runs.recording import Recording
from batch.runs.view import document, facts
from batch.sink import Commit
from tests.harness import wait_until
from tests.unit.batch.test_batch_observe import OTHER, Heard, commit
from tests.unit.worker.pieces import TP, small_plan
from tidegate.clock import Clock, ManualClock
from tidegate.config.sinks import SqliteSink
from tidegate.errors import BrokerUnavailable, StoreHeld
from tidegate.stages.batch import PartitionState
from tidegate.store.runs import Run, Runs, open_runs


@pytest.fixture
def sink(tmp_path: Path) -> SqliteSink:
    return SqliteSink(type="sqlite", path=str(tmp_path / "store.db"))


@pytest.fixture
def runs(sink: SqliteSink) -> Iterator[Runs]:
    opened = open_runs(sink, "p")
    yield opened
    opened.close()


def recording(sink: SqliteSink, heard: Heard, clock: Clock | None = None) -> Recording:
    return Recording(small_plan().pipeline, "once", heard, open_runs(sink, "p"), clock)


def only(runs: Runs) -> Run:
    [run] = runs.recent()
    return run


@pytest.mark.slow
def test_a_run_from_its_first_step_to_its_end(sink: SqliteSink, runs: Runs) -> None:
    """What it does, what its micro-batches were and where it is; the rate is that of the time in which they were at work, and
    what two of them shared of it counts once. Another watch is told as well."""
    heard, report, clock = Heard(), Report("p"), ManualClock()
    record = recording(sink, heard, clock)
    record.starting("Spark")
    record.begin(threading.Event())
    wait_until(lambda: [one.said.doing for one in runs.recent()] == ["starting: Spark"], 5, "the first step")
    record.serves("http://m")
    record.waiting(BrokerUnavailable("away"), 1.5)
    wait_until(lambda: only(runs).said.doing == "waiting 1.5 s: away", 5, "the outage")
    whole = commit(lags={TP: 40, OTHER: 2})
    for each, later in ((whole, 1.0), (commit(lags=None), 60.0), (whole, 0.15)):
        clock.advance(later)
        report.add(each)
        record.committed(report, each, 42)
    for _ in range(2):
        record.published("kafka", {"totals": 2, "colours": 1})
    wait_until(
        lambda: only(runs).said.published == {"kafka": 6}, 5, "the micro-batches, and what a sink was given of them"
    )
    found = document(only(runs))
    assert (found["state"], found["doing"], found["read"], found["lag"], found["metrics"]) == (
        "running", None, 45, 42, "http://m",
    )  # fmt: skip
    assert (found["recordsPerSecond"], found["batchSeconds"]) == (60.0, 0.3)
    assert [(one["partition"], one["upto"], one["lag"], one["watermark"]) for one in found["partitions"]] == [
        (0, 9, 40, "2023-11-14T22:14:20Z"), (1, 4, 2, None),
    ]  # fmt: skip
    record.end(report)
    assert "results for sink kafka: 6" in facts(only(runs))
    told = [("kafka", {"totals": 2, "colours": 1})] * 2
    assert (only(runs).state, heard.told) == ("finished", ["Spark", 1.5, 42, 42, 42, *told])


class HeardOfCatchup(Heard):
    def held_by_another(self, error: StoreHeld) -> None:
        self.told.append(error.holder)

    def holding(self) -> None:
        self.told.append("holding")

    def handed_back(self, lag: int | None) -> None:
        self.told.append(f"back {lag}")


@pytest.mark.slow
def test_a_catch_up_is_one_run_whatever_its_rounds(sink: SqliteSink, runs: Runs) -> None:
    """Its row says what it waits for, that it holds the pipeline, and what all its rounds have read; its own watch hears all."""
    heard, rounds = HeardOfCatchup(), CatchupReport("p", [Report("p"), Report("p")])
    record = CatchupRecording(small_plan().pipeline, heard, open_runs(sink, "p"))
    record.held_by_another(StoreHeld("another", datetime(2026, 1, 1, tzinfo=UTC)))
    record.begin(threading.Event())
    held = "waiting: held by another since 2026-01-01 00:00:00 UTC"
    wait_until(lambda: [one.said.doing for one in runs.recent()] == [held], 5, "the wait")
    record.holding()
    wait_until(lambda: only(runs).said.doing == "holding the pipeline: workers wait", 5, "the hold")
    for report in rounds.rounds:
        each = commit(lags={TP: 0, OTHER: 0})
        report.add(each)
        record.committed(report, each, 0)
    record.handed_back(0)
    record.end(rounds.total)
    found = document(only(runs))
    assert (found["trigger"], found["state"], found["batches"], found["read"]) == ("catchup", "finished", 2, 30)
    assert heard.told == ["another", "holding", 0, 0, "back 0"]


@pytest.mark.slow
def test_who_asks_for_its_end_is_heard(sink: SqliteSink, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's `stop` is set, and the row says so until it has ended."""
    monkeypatch.setattr(recording_module, "_EVERY", 0.1)
    stop, report = threading.Event(), Report("p")
    record = recording(sink, Heard())
    record.begin(stop)
    wait_until(lambda: len(runs.recent()) == 1, 5, "the row")
    runs.ask_to_stop(only(runs).said.run)
    assert stop.wait(5)
    assert only(runs).state == "stopping"
    report.stopped = True
    record.end(report)
    assert only(runs).state == "stopped"


@pytest.mark.slow
def test_a_database_that_fails_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged once however often it fails, and what is missing is written when it is there again."""
    place = tmp_path / "later"
    sink = SqliteSink(type="sqlite", path=str(place / "store.db"))
    monkeypatch.setattr(recording_module, "_EVERY", 0.1)
    tries, prepare = list[int](), Runs.prepare
    monkeypatch.setattr(Runs, "prepare", lambda runs: (tries.append(1), prepare(runs)))
    record, report = recording(sink, Heard()), Report("p")
    with capture_logs() as logs:
        record.begin(threading.Event())
        wait_until(lambda: len(tries) >= 3, 10, "several beats")
        record.committed(report, Commit(states={TP: PartitionState(3)}), None)
        place.mkdir()
        report.error = "no more"
        record.end(report)
    assert [entry["event"] for entry in logs] == ["batch.beat_failed"]
    opened = open_runs(sink, "p")
    run = only(opened)
    opened.close()
    assert (run.state, run.said.error, [one.upto for one in run.said.positions]) == ("failed", "no more", [3])
