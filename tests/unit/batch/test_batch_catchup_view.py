"""What a person sees of a catch-up."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import Progress, TextColumn
from structlog.testing import capture_logs

from batch.catchup.run import CatchupReport
from batch.catchup.view import View, view
from batch.report import Report
from batch.sink import Commit
from tidegate.errors import StoreHeld
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState

A, B = TopicPartition("t", 0), TopicPartition("t", 1)
COMMIT = Commit({A: Ledger(60, 58, 2), B: Ledger(40, 40)}, 2)
HELD = StoreHeld("catchup:x:1", datetime.fromtimestamp(0, UTC))


def test_a_terminal_shows_what_is_left() -> None:
    """The bar's whole is what was read and what is left; the words say whether workers wait."""
    progress = Progress(TextColumn("{task.description}"), console=Console(file=io.StringIO()))
    shown = View("p", progress)
    [task] = progress.tasks
    seen = []
    for act in (
        lambda: shown.starting("Spark"),
        lambda: shown.held_by_another(HELD),
        shown.holding,
        lambda: shown.starting("Spark"),
        lambda: shown.committed(Report("p"), COMMIT, 12_300),
        lambda: shown.handed_back(0),
    ):
        act()
        seen.append(task.description)
    assert seen == [
        "p: starting Spark; workers go on",
        "p: held by catchup:x:1 since 1970-01-01 00:00:00 UTC: waiting until that expires",
        "p: workers wait; the first micro-batch takes longest",
        "p: workers wait; the first micro-batch takes longest",
        "p: draining",
        "p: handed back",
    ]
    assert (task.completed, task.total, task.fields["left"]) == (100, 12_400, "12 300 left")


def test_without_a_terminal_events_are_logged() -> None:
    """One for each step."""
    with capture_logs() as logs, view("p", io.StringIO()) as shown:
        shown.starting("Spark")
        shown.held_by_another(HELD)
        shown.holding()
        shown.committed(Report("p"), COMMIT, None)
        shown.handed_back(5)
        shown.end()
    assert [entry["event"] for entry in logs] == [
        f"catchup.{e}" for e in ("waiting", "holding", "committed", "handed_back")
    ]
    assert {k: v for k, v in logs[2].items() if k in ("records", "left")} == {"records": 100, "left": None}


def test_the_report_adds_its_rounds_up() -> None:
    """Ledgers, micro-batches and windows that have gone are sums, the offsets are the last round's."""
    first = Report("p", 2, 1.0, 1, {A: Ledger(10, 10)}, {A: PartitionState(9), B: PartitionState(-1)})
    second = Report("p", 1, 1.0, 0, {A: Ledger(5, 5), B: Ledger(1, 1)}, {A: PartitionState(14), B: PartitionState(0)})
    for one in (first, second):
        one.add_timed_out({"totals": 2})
    document = CatchupReport("p", [first, second], seconds=20.5, held=3.5, lag=7).document()
    assert {name: document[name] for name in ("outcome", "batches", "read", "deadLettered", "rounds", "lag")} == {
        "outcome": "finished", "batches": 3, "read": 16, "deadLettered": 1, "rounds": 2, "lag": 7,
    }  # fmt: skip
    assert document["timedOut"] == {"totals": 4}
    assert (document["seconds"], document["heldSeconds"], document["groupOffsetsWritten"]) == (20.5, 3.5, False)
    assert [(row["partition"], row["upto"], row["read"]) for row in document["partitions"]] == [(0, 14, 15), (1, 0, 1)]
