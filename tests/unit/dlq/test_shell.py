"""`tidegate dlq` over a local index: every command for scripts, with the console's filters; harmless whatever it prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
from typer.testing import CliRunner

from dlq.cli import app
from dlq.console import queries
from dlq.index.filters import LetterFilter
from dlq.replay.follow import Again
from dlq.replay.names import OUTCOMES
from dlq.replay.outcome import Outcomes
from dlq.replay.request import Request
from tests.console_scene import NOW, Scene, dead, scene, some_failures
from tidegate.clock import ManualClock
from tidegate.telemetry import metric_defs as m

COMMANDS = typer.main.get_command(app)
NOT_FOR_SCRIPTS = {"agent", "console"}  # they go on until they are stopped
Run = Callable[..., Any]


def all_commands() -> Iterator[tuple[str, click.Command]]:
    def below(name: str, command: Any) -> Iterator[tuple[str, click.Command]]:
        if hasattr(command, "commands"):
            for part, one in command.commands.items():
                yield from below(f"{name} {part}".strip(), one)
        elif name not in NOT_FOR_SCRIPTS:
            yield name, command

    return below("", COMMANDS)


def options_of(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[tuple[Scene, Run]]:
    """An index with sixty dead letters, and `run(command, *arguments)`; with `--json` what it printed, decoded."""
    with scene(tmp_path) as opened:
        opened.prepare().write(*some_failures())
        file = tmp_path / "pipeline.json"
        index = {"index": f"sqlite:///{tmp_path / 'index.sqlite'}"}
        file.write_text(json.dumps({"pipelineId": "flights", "source": {"topics": ["flights"]}, "deadLetters": index}))

        def run(command: str, *arguments: str, code: int = 0, input: str | None = None, fails: bool = False) -> Any:
            name, *rest = command.split()
            path = [name, rest.pop(0)] if name == "jobs" else [name]
            result = CliRunner().invoke(app, [*path, str(file), *rest, *arguments], input=input)
            if fails:
                assert result.exit_code == 1, result.output
                return result.output
            assert result.exit_code == code, result.output
            if code:
                return str(result.exception)
            return json.loads(result.stdout) if "--json" in arguments else result.output

        yield opened, run


@pytest.mark.parametrize(("name", "command"), list(all_commands()), ids=[name for name, _ in all_commands()])
def test_every_command_is_fit_for_scripts(name: str, command: click.Command) -> None:
    """It has --json, says what it does, and can be told not to ask if it asks."""
    options = options_of(command)
    assert "--json" in options
    assert command.help
    if name in ("replay", "edit", "park", "resolve", "jobs cancel"):
        assert "--yes" in options


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("list", queries.Filter), ("export", queries.Filter), ("preview", queries.Filter), ("replay", queries.Filter),
        ("park", queries.Filter), ("groups", queries.GroupsQuery), ("jobs list", queries.JobsQuery),
        ("jobs show", queries.ResultsQuery), ("audit", queries.AuditQuery),
    ],
)  # fmt: skip
def test_what_the_console_filters_the_shell_filters(name: str, model: Any) -> None:
    """Each part of a filter of the console, and of its paging, is an option (or the words) of the command."""
    options = options_of(dict(all_commands())[name]) | {"words" if name == "list" else ""}
    wanted = set(model.model_fields) - ({"state"} if name in ("preview", "replay", "park") else set())
    missing = {one for one in wanted if f"--{one}" not in options and not (one == "text" and "words" in options)}
    assert missing == set()


def test_groups_page_by_page(shell: tuple[Scene, Run]) -> None:
    """`--after` goes on where a page ended, with the same groups as all at once; filters of group, time and pipeline hold."""
    _, run = shell
    whole = [group["group"] for group in run("groups", "--json")]
    found, place = list[str](), ""
    while place is not None and len(found) <= len(whole):
        page = run(f"groups --limit 1 {place}")
        found += [name for name in whole if re.search(rf"^.*{name}.*open", page, re.MULTILINE)]
        more = re.search(r"more: (--after \S+)", page)
        place = more[1] if more else None
    assert found == whole
    assert run("groups", "--pipeline", "other", "--json") == []
    assert run("groups", "--since", str(int(NOW * 1000) + 1), "--json") == []
    assert len(run("groups", "--pipeline", "flights", "--json")) == len(whole)


def test_letters_by_pipeline_and_time(shell: tuple[Scene, Run]) -> None:
    """The pipeline, and both ends of a time."""
    _, run = shell
    assert run("list", "--pipeline", "flights", "--json")["count"] == 60
    assert run("list", "--pipeline", "other", "--json")["count"] == 0
    since, until = (str(int((NOW - seconds) * 1000)) for seconds in (14_000, 7_000))
    assert run("list", "--since", since, "--until", until, "--json")["count"] == 5


def test_acts_and_who_did_them(shell: tuple[Scene, Run]) -> None:
    """Acknowledge and resolve answer scripts, resolve asks first, and the history has them, filtered and page by page."""
    opened, run = shell
    group = opened.group
    assert run("ack", group, "--json") == {"group": group, "state": "acknowledged"}
    assert "--yes" in run("resolve", group, "--json", code=1)
    assert "Close 38 open dead letters" in run("resolve", group, input="n\n", fails=True)
    assert opened.index.reader.count(LetterFilter(state=("open",))).number == 60
    done = run("resolve", group, "--note", "mended", "--yes", "--json")
    assert (done["state"], done["letters"]) == ("resolved", 38)
    entries = run("audit", "--group", group, "--json")
    assert [(entry["action"], entry["note"]) for entry in entries] == [("resolve", "mended"), ("acknowledge", "")]
    assert [one["action"] for one in run("audit", "--before", str(entries[0]["entry"]), "--json")] == ["acknowledge"]
    assert run("audit", "--actor", "nobody", "--json") == []
    assert "mended" in run("audit", "--action", "resolve")
    assert "nothing has been done" in run("audit", "--action", "reveal")


def test_jobs_by_state(shell: tuple[Scene, Run]) -> None:
    """Jobs are listed by state and page by page; pause, resume and cancel answer scripts, and cancel needs --yes then."""
    opened, run = shell
    first, second = (
        opened.index.replay(Request(LetterFilter(stage=(s,))), actor="ada").id for s in ("handle", "validate")
    )
    assert run(f"jobs pause {first}", "--json") == {"job": first, "state": "paused"}
    assert [one["job"] for one in run("jobs list", "--state", "paused", "--json")] == [first]
    newest = run("jobs list", "--limit", "1", "--json")[0]["job"]
    assert [one["job"] for one in run("jobs list", "--before", newest, "--json")] == [
        ({first, second} - {newest}).pop()
    ]
    assert run(f"jobs resume {first}", "--json")["state"] == "running"
    run(f"jobs cancel {first} --yes", "--json")
    assert "--yes" in run(f"jobs cancel {second}", "--json", code=1)
    assert "no such state" in run("jobs list", "--state", "lost", code=1)
    assert "no such state" in run("groups", "--state", "lost", code=1)


def test_a_loop_is_told_apart_everywhere(shell: tuple[Scene, Run]) -> None:
    """Of two replays that failed as before, the one whose record had come back from a replay already is a loop: in the
    shell, the API, the console's pages and the metric."""
    opened, run = shell
    opened.write(dead(70, at=NOW, headers=(("tidegate.dlq.replays", b"1"),)), dead(71, at=NOW))
    letters = {letter["id"]: letter for letter in opened.index.reader.every(LetterFilter(key=("N77",)))}
    chosen = LetterFilter(id=("flights-1-70", "flights-2-71"))
    job = opened.index.jobs.create(Request(chosen), actor="ada", owner="me")
    found = {
        row["position"]: Again("flights.dlq", f"new-{row['id']}", letters[row["id"]]["fingerprint"], mended=False)
        for row in opened.index.jobs.results(job.id)
    }
    assert Outcomes(opened.index.jobs, ManualClock(NOW)).came_back(job, found, {}) == {"failed_again": 1, "loop": 1}
    shown = run(f"jobs show {job.id}", "--outcome", "loop", "--json")
    assert (shown["outcomes"], [row["id"] for row in shown["results"]]) == (
        {"failed_again": 1, "loop": 1},
        ["flights-1-70"],
    )
    assert "1 failed_again, 1 loop" in run(f"jobs show {job.id}")
    assert re.search(r"failed again\W+loop", run("jobs list"))
    client = opened.client()
    assert client.get(f"/api/jobs/{job.id}").json()["outcomes"] == shown["outcomes"]
    assert client.get(f"/api/jobs/{job.id}/letters?outcome=loop").json()["results"] == shown["results"]
    assert "<strong>1</strong><span>loop</span>" in client.get(f"/jobs/{job.id}").text
    assert 'data-label="Loop">1<' in client.get("/jobs").text
    assert m.DLQ_REPLAYS.labels["outcome"] == OUTCOMES


def test_one_record_in_full(shell: tuple[Scene, Run]) -> None:
    """show has what the API has of a letter; an unknown id is refused with the nearest that are."""
    opened, run = shell
    id = opened.index.reader.page(LetterFilter(stage=("handle",)), limit=1).letters[0]["id"]
    found = run(f"show {id}", "--json")
    assert opened.client().get(f"/api/letter?id={id}").json() == found
    assert found["detail"]["stack"] == "Traceback: boom"
    printed = run(f"show {id}")
    assert f"group         {found['group']}" in printed
    assert "stack\n  Traceback: boom" in printed
    told = run("show flights-0-6000", code=1)
    assert "there is no dead letter with this id" in told
    assert "flights-0-6" in told.partition("nearest")[2]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--reveal", "a reveal needs a reason"),
        ("--reveal --reason ab", "at least 3 characters"),
        ("--reason because", "--reveal besides it"),
    ],
)
def test_a_reveal_says_why(shell: tuple[Scene, Run], options: str, told: str) -> None:
    """Without a reason nothing is revealed, and nothing stands in the history."""
    opened, run = shell
    assert told in run(f"show flights-0-0 {options}", code=1)
    assert opened.index.reader.history() == []


def test_no_agent_is_at_work(shell: tuple[Scene, Run]) -> None:
    """Whoever looks at an index that nobody fills any more is told since when, beside the answer."""
    _, run = shell
    for command in ("list", "groups", "stats", "export"):
        assert "no agent has looked at the topics since 2023-11-14 22:13:20" in run(command), command
        run(command, "--json") if command != "export" else None


def test_a_script_gets_what_it_can_parse_and_a_person_what_is_harmless(shell: tuple[Scene, Run]) -> None:
    """ANSI sequences, marks that turn the reading direction and formulas, in every place of a record, out of every command
    that shows it: no control character, and no cell of the CSV that a spreadsheet would run."""
    opened, run = shell
    evil = "\x1b[31m\u202e=cmd|' /C calc'!A0\u2066\x9b"
    value = json.dumps({evil: evil}).encode()
    opened.write(dead(70, at=NOW, message=evil, error=evil, rule=evil, key=b"=1+1", topic=evil, value=value))
    letter = opened.index.reader.page(LetterFilter(key=("=1+1",))).letters[0]
    opened.index.lifecycle.acknowledge(letter["fingerprint"], actor=evil, note=evil)
    commands = ["groups", f"groups {letter['fingerprint']}", "list", "stats", "audit", "export", "jobs list"]
    for command in commands:
        for arguments in ((), ("--json",)):
            if command == "export" and arguments:
                continue
            run(command, *arguments)
            printed = run(command, *arguments) if not arguments else json.dumps(run(command, *arguments))
            steering = [c for c in printed if (ord(c) < 32 and c not in "\r\n") or 127 <= ord(c) < 160]
            assert not steering, command
            assert not set(printed) & set("\u202e\u2066"), command
    rows = run("export").splitlines()
    assert not [row for row in rows if row.startswith(("=", "+", "-", "@")) or ",=" in row]
    assert any("'=1+1" in row for row in rows)
