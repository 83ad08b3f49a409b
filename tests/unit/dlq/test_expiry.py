"""What retention is about to delete, and nobody has dealt with, is said before it is too late: in the log, as a metric, in the
shell. (On pages: tests/unit/console/test_pages.py; which letters those are: tests/contract/test_dlq_index.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from dlq.cli import app
from dlq.watch import Watch
from tests.console_scene import DLQ, NOW, dead, scene
from tidegate.telemetry import metric_defs as m
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter

DAY = 86_400
WEEK_MS = 7 * DAY * 1000


def test_the_agent_warns_once_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three letters of one group go within the two days, a fourth later: a warning with group, topic, number and time left,
    not again while it is the same; the metric has the number as long as it holds."""
    monkeypatch.setattr("dlq.watch.retentions", lambda _options, topics: dict.fromkeys(topics, WEEK_MS))  # Kafka's part
    with scene(tmp_path) as opened:
        opened.prepare().write(*(dead(n, at=NOW - 6 * DAY + n) for n in range(3)), dead(3, at=NOW, message="other"))
        reporter = PrometheusReporter()
        watch = Watch(
            opened.index.database, Metrics(reporter), {}, (DLQ.topic,), expiry_warning=2 * DAY * 1000, clock=opened.index.clock
        )  # fmt: skip
        with capture_logs() as logs:
            watch.look()
            watch.look()
        (warning,) = [entry for entry in logs if entry["event"] == "dlq.expiring"]
        group = opened.index.reader.letter("flights-0-0")
        assert group is not None
        assert (warning["group"], warning["topic"], warning["letters"]) == (group["fingerprint"], DLQ.topic, 3)
        assert (warning["log_level"], warning["seen"], warning["first_in"]) == ("warning", False, "1 day")
        assert metric(reporter) == 3
        opened.index.lifecycle.resolve(group["fingerprint"], actor="ada")
        watch.look()
        assert metric(reporter) == 0


def metric(reporter: PrometheusReporter) -> float:
    name = m.DLQ_EXPIRING_RECORDS.name
    (line,) = [line for line in reporter.render()[0].decode().splitlines() if line.startswith(name + "{")]
    return float(line.rpartition(" ")[2])


def test_the_shell_warns(tmp_path: Path) -> None:
    """`groups` and `stats` say it on standard error, below what was asked for; `stats --json` has it for scripts."""
    with scene(tmp_path) as opened:
        opened.prepare().write(*(dead(n, at=NOW) for n in range(90)))
        group = opened.group
    file = tmp_path / "pipeline.json"
    document = {"pipelineId": "flights", "deadLetters": {"index": f"sqlite:///{tmp_path / 'index.sqlite'}"}}
    file.write_text(json.dumps(document))
    for command in ("groups", "stats"):
        said = CliRunner().invoke(app, [command, str(file)]).stderr
        assert f"warning: 90 dead letters of {group} expire in {DLQ.topic}, the first now" in said
    (entry,) = json.loads(CliRunner().invoke(app, ["stats", str(file), "--json"]).stdout)["expiring"]
    assert (entry["fingerprint"], entry["count"]) == (group, 90)
