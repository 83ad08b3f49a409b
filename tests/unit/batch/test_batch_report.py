"""What a run says: while it goes on, and at its end."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest
from rich.status import Status

from batch.report import Report
from batch.sink import Commit
from batch.watch import Watching, watch
from tidegate.errors import BrokerUnavailable
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


def report_of(*commits: Commit) -> Report:
    report = Report("p", seconds=2.0)
    for commit in commits:
        report.add(commit)
    return report


COMMITS = (
    Commit({A: Ledger(read=5, accepted=3, dead_lettered=1, late=1), B: Ledger(read=2, accepted=2)}, dead=1),
    Commit({A: Ledger(read=1, duplicate=1)}),
)


def test_the_report_adds_up_what_was_committed() -> None:
    """Per partition and in all; a partition without records is there too, and what failed is told from what was written."""
    report = report_of(*COMMITS)
    for results in ({"totals": 2, "colours": 1}, {"totals": 4}):
        report.add_published("kafka", results)
    report.states = {A: PartitionState(9), B: PartitionState(1), TopicPartition("t", 2): PartitionState()}
    document = report.document()
    assert document["published"] == {"kafka": 7}
    assert {name: document[name] for name in ("batches", "read", "accepted", "failed", "deadLettered", "late")} == {
        "batches": 2, "read": 8, "accepted": 5, "failed": 1, "deadLettered": 1, "late": 1
    }  # fmt: skip
    assert [(row["partition"], row["upto"], row["read"]) for row in document["partitions"]] == [
        (0, 9, 6),
        (1, 1, 2),
        (2, None, 0),
    ]


@pytest.mark.parametrize(
    ("error", "stopped", "outcome"), [(None, False, "finished"), (None, True, "stopped"), ("x", True, "failed")]
)
def test_outcomes(error: str | None, stopped: bool, outcome: str) -> None:
    """A run that failed while it was being stopped has failed."""
    assert Report("p", error=error, stopped=stopped).outcome == outcome


def test_the_line_on_a_terminal() -> None:
    """It says what the last micro-batch was and what is left; an outage takes its place."""
    shown: list[str] = []

    class Line:
        def update(self, text: str) -> None:
            shown.append(text)

    watching = Watching("p", cast(Status, Line()))
    watching.committed(report_of(*COMMITS), COMMITS[1], 12)
    assert shown[-1].startswith("p: micro-batch 2  0 records/s  lag 12  read 8  accepted 5  dead-lettered 1  late 1")
    watching.committed(report_of(*COMMITS), COMMITS[0], None)
    assert "lag ?" in shown[-1]
    watching.waiting(BrokerUnavailable("no answer"), 1.5)
    assert shown[-1] == "p: waiting 1.5 s: no answer"


def test_without_a_terminal_events_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn into a file."""
    logged: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def info(self, event: str, **fields: Any) -> None:
            logged.append((event, fields))

    monkeypatch.setattr("batch.watch.log", Log())
    stream = io.StringIO()
    with watch("p", stream) as watching:
        watching.committed(report_of(*COMMITS), COMMITS[1], 12)
        watching.end()
    assert logged == [("batch.committed", {"batch": 2, "records": 1, "lag": 12, "dead_lettered": 0})]
    assert stream.getvalue() == ""
