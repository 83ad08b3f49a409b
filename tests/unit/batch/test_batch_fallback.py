"""When it is time for a catch-up, and what the watch then does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from structlog.testing import capture_logs
from typer.testing import CliRunner

from batch.catchup.policy import Policy, Situation
from batch.catchup.watch import Watcher
from tidegate.cli.main import app
from tidegate.clock import ManualClock
from tidegate.config.fallback import Fallback
from tidegate.errors import StoreHeld, StoreUnavailable

NOTHING: dict[str, Any] = {"lagRecords": None, "workerDownFor": None}


def policy(**settings: Any) -> Policy:
    return Policy(Fallback.model_validate({**NOTHING, **settings}))


def test_each_condition_has_its_reason() -> None:
    """Offsets, the age of the oldest record, or the time without a worker: the first that holds is said with its limit."""
    assert policy(lagRecords=100).reason(Situation(100), 0) == "100 offsets are not applied (lagRecords: 100)"
    old = policy(lagSeconds=60).reason(Situation(1, oldest=61), 0)
    assert old == "the oldest record that is not applied came 61 s ago (lagSeconds: 60)"
    down = policy(workerDownFor=120_000)
    assert down.reason(Situation(5), 1000) is None
    assert down.reason(Situation(5), 1120) == "no worker has been there for 120 s (workerDownFor: 2 minutes)"


def test_what_is_no_reason() -> None:
    """Less than a limit, no limit at all, nothing to do, somebody who is at it; and a worker that came back in between."""
    assert policy(lagRecords=100).reason(Situation(99), 0) is None
    assert policy(lagSeconds=60).reason(Situation(1, oldest=59.9), 0) is None
    assert policy(lagSeconds=60).reason(Situation(1), 0) is None
    assert policy().reason(Situation(10**9, oldest=10**9), 10**9) is None
    assert policy(lagRecords=1).reason(Situation(9, held_by="catchup:1"), 0) is None
    down = policy(workerDownFor=10_000)
    found = [down.reason(Situation(lag, workers=n), at) for at, lag, n in ((0, 1, 0), (5, 1, 1), (9, 1, 0), (18, 1, 0))]
    assert found == [None] * 4
    assert down.reason(Situation(0), 30) is None
    assert down.reason(Situation(1), 30) is not None


def test_a_mode_without_a_condition_is_refused() -> None:
    """It would never do anything."""
    with pytest.raises(ValidationError, match="mode auto has no condition"):
        policy(mode="auto")
    policy(mode="off")


class Watched:
    """A watcher with a script of situations. `caught`: how often it took over."""

    def __init__(
        self, mode: str, *script: Situation | Exception, failing: Exception | None = None, **conditions: Any
    ) -> None:
        self.script, self.caught, self.failing, self.clock = list(script), 0, failing, ManualClock()
        fallback = Fallback.model_validate(
            {"mode": mode, **(NOTHING | conditions if conditions else {"lagRecords": 10})}
        )
        self.watcher = Watcher(fallback, self.look, self.take_over, "tidegate batch catchup p.yaml", clock=self.clock)

    def look(self) -> Situation:
        self.clock.advance(5)
        found = self.script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def take_over(self) -> None:
        self.caught += 1
        if self.failing is not None:
            raise self.failing

    def said(self) -> list[str]:
        """The events of all looks."""
        with capture_logs() as logs:
            while self.script:
                self.watcher.once()
        return [f"{entry['event']} {entry.get('command', '')}".strip() for entry in logs]


def test_suggest_names_the_command_once_while_the_reason_lasts() -> None:
    """Again when it has gone and come back; nothing is started."""
    watched = Watched("suggest", *map(Situation, (9, 10, 11, 0, 10)))
    assert watched.said() == ["fallback.suggested tidegate batch catchup p.yaml"] * 2
    assert watched.caught == 0


def test_auto_takes_over_each_time() -> None:
    """As long as there is a reason."""
    watched = Watched("auto", *map(Situation, (9, 10, 0, 10)))
    assert watched.said() == ["fallback.begins"] * 2
    assert watched.caught == 2


@pytest.mark.parametrize("mode", ["suggest", "auto"])
@pytest.mark.parametrize(
    ("condition", "before", "reached"),
    [
        ({"lagRecords": 10}, Situation(9, oldest=99, workers=1), Situation(10)),
        ({"lagSeconds": 60}, Situation(9, oldest=59), Situation(9, oldest=60, workers=1)),
        ({"workerDownFor": "5 seconds"}, Situation(10**9, oldest=99), Situation(1)),
    ],
)
def test_each_mode_goes_by_each_condition(
    mode: str, condition: dict[str, Any], before: Situation, reached: Situation
) -> None:
    """As soon as it is reached, and not before."""
    event = {"suggest": "fallback.suggested tidegate batch catchup p.yaml", "auto": "fallback.begins"}[mode]
    watched = Watched(mode, before, **condition)
    assert watched.said() == []
    watched.script = [reached]
    assert (watched.said(), watched.caught) == ([event], int(mode == "auto"))


def test_what_the_watch_lives_through() -> None:
    """A database or broker that does not answer, and another catch-up that was quicker. Other failures end it."""
    held = StoreHeld("catchup:2", datetime.fromtimestamp(0, UTC))
    watched = Watched("auto", StoreUnavailable("away"), Situation(10), failing=held)
    assert watched.said() == ["fallback.blind", "fallback.begins", "fallback.left"]
    with pytest.raises(ValueError, match="broken"):
        Watched("auto", Situation(10), failing=ValueError("broken")).said()


def test_watching_with_nothing_to_watch_for(tmp_path: Path) -> None:
    """`--watch` on a file whose mode is off: exit code 2, the field, and what to write."""
    file = tmp_path / "pipeline.yaml"
    document = {
        "pipelineId": "p",
        "source": {"topics": ["t"]},
        "schema": [{"name": "a", "type": "int"}],
        "sinks": [{"type": "postgres", "url": "postgresql://localhost/x"}],
    }
    file.write_text(yaml.safe_dump(document))
    done = CliRunner().invoke(app, ["batch", "catchup", str(file), "--watch"])
    assert (done.exit_code, "fallback.mode: nothing to watch for" in done.stderr) == (2, True)
    file.write_text(yaml.safe_dump({**document, "sinks": [{"type": "kafka"}]}))
    done = CliRunner().invoke(app, ["batch", "catchup", str(file)])
    assert (done.exit_code, "sinks: a batch run keeps its state" in done.stderr) == (2, True)
