"""When a run deletes windows for good: only those that are due, and only where every sink has had them. Over SQLite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from batch.catchup.needs import for_spark
from batch.claims import Claims
from batch.timeouts import Timeouts
from tests.contract.store_records import DELAY, SIZE, START, Flight, batch_of, flights_plan
from tidegate.config.errorhandling import ErrorHandling
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import SqliteSink
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.plan import Plan
from tidegate.store import open_store
from tidegate.store.base import Store

TP = TopicPartition("flights", 0)
TIMEOUT = 100 * SIZE


def plan_with(timeout: int | None) -> Plan:
    plan = flights_plan(measures=["flights"], groups=["overall"])
    assert plan.pipeline.event_time is not None
    event_time = plan.pipeline.event_time.model_copy(update={"state_timeout": timeout})
    return Plan(
        plan.pipeline.model_copy(update={"event_time": event_time}), plan.decoded, plan.columns, plan.aggregations
    )


class Run:
    """A run on one partition. `asked`: how often the database was."""

    def __init__(self, path: Path, timeout: int | None) -> None:
        self.plan = plan_with(timeout)
        self.store: Store = open_store(self.plan, SqliteSink(type="sqlite", path=str(path)))
        self.store.prepare()
        guard = Guard("store", ErrorHandling())
        self.claims = Claims(self.plan, self.store, guard, "run", {})
        self.claims.claim([TP])
        self.gone: list[Mapping[str, int]] = []
        self.timeouts = Timeouts(self.plan, self.store, guard, self.claims, self.gone.append)
        self.asked, self._time_out = 0, self.store.time_out
        self.store.time_out = self._counted  # type: ignore[method-assign]  # to count

    def _counted(self, *args: Any) -> Any:
        self.asked += 1
        return self._time_out(*args)

    def after(self, *times: int) -> Mapping[str, int]:
        """A micro-batch with records of these event times, then the look."""
        before = self.claims.states[TP]
        records = [Flight(before.upto + 1 + n, time=time) for n, time in enumerate(times)]
        whole = batch_of(self.plan, TP, records, before=before)
        self.claims.write([self.claims.batch(TP, whole.state, deltas=whole.deltas)])
        return self.look()

    def look(self) -> Mapping[str, int]:
        """What has gone with this look."""
        self.gone.clear()
        self.timeouts.look()
        return self.gone[0] if self.gone else {}


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Any]:
    made: list[Run] = []

    def run(timeout: int | None) -> Run:
        made.append(Run(tmp_path / "x.db", timeout))
        return made[-1]

    yield run
    for one in made:
        one.store.close()


def test_windows_go_when_they_are_due(runs: Any) -> None:
    """They are counted and logged; the database is asked when the watermark has passed another end, and not in between."""
    run = runs(TIMEOUT)
    end = START + SIZE + TIMEOUT + DELAY
    assert run.after(START, START + SIZE, end - 1) == {}
    asked = run.asked
    with capture_logs() as logged:
        assert run.after(end) == {"overall": 1}
    assert [(event["event"], event["aggregation"], event["windows"]) for event in logged] == [
        ("windows.timed_out", "overall", 1)
    ]
    assert run.after(end + 1) == run.after(end + SIZE - 1) == {}
    assert run.asked == asked + 1
    assert run.after(end + SIZE) == {"overall": 1}


def test_without_a_timeout_windows_stay(runs: Any) -> None:
    """The database is not asked."""
    run = runs(None)
    assert run.after(START, START + 10**12) == {}
    assert run.asked == 0


@pytest.mark.parametrize("sinks", [[], [{"type": "delta", "path": "/data"}]])
def test_a_catch_up_leaves_them_to_runs(sinks: list[dict[str, Any]]) -> None:
    """Where there is a sink that follows the database: it may not have them yet, and a catch-up gives it nothing."""
    document = {
        "pipelineId": "p",
        "source": {"topics": ["t"]},
        "schema": [{"name": "at", "type": "timestamp", "unit": "ms"}],
        "eventTime": {"column": "at", "stateTimeout": "3 days"},
        "sinks": [{"type": "postgres", "url": "postgresql://localhost/x"}, *sinks],
    }
    event_time = for_spark(Pipeline.model_validate(document)).event_time
    assert event_time is not None
    assert (event_time.state_timeout is None) == bool(sinks)
