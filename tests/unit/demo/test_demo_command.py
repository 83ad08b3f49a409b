"""`tidegate demo` as a command: its options and exit codes, without the run (tests/integration/test_demo.py has that)."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tidegate.cli.main import app
from tidegate.demo import run
from tidegate.demo.run import Options


def _demo(
    monkeypatch: pytest.MonkeyPatch, *options: str, ends: bool | BaseException = True
) -> tuple[int, str, list[Options]]:
    """Exit code, output, and what a run was asked for. `ends`: what the run says, or raises."""
    asked: list[Options] = []

    def run_demo(options: Options, console: object) -> bool:
        asked.append(options)
        if isinstance(ends, BaseException):
            raise ends
        return ends

    monkeypatch.setattr(run, "run_demo", run_demo)
    done = CliRunner().invoke(app, ["demo", *options])
    return done.exit_code, done.output, asked


@pytest.mark.parametrize(("ends", "code"), [(True, 0), (False, 1), (KeyboardInterrupt(), 130)])
def test_the_exit_code_says_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, ends: bool | BaseException, code: int
) -> None:
    """0: every number is right. 1: one differs. 130: Ctrl-C."""
    assert _demo(monkeypatch, ends=ends)[0] == code


def test_options_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """All flights as fast as it goes unless told otherwise."""
    assert _demo(monkeypatch)[2] == [Options(limit=None, speed=None, keep=False)]
    said = ("--limit", "100", "--speed", "100000", "--keep")
    assert _demo(monkeypatch, *said)[2] == [Options(limit=100, speed=100_000.0, keep=True)]


@pytest.mark.parametrize("wrong", [("--speed", "0"), ("--speed", "fast"), ("--limit", "0")])
def test_a_wrong_option_starts_nothing(monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, str]) -> None:
    """It is named with what was expected, and the exit code is 2."""
    code, said, asked = _demo(monkeypatch, *wrong)
    assert (code, asked) == (2, [])
    assert wrong[0] in said or repr(wrong[1]) in said


def test_without_java_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before anything is started or downloaded."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 1
    assert "Java 17" in done.output
    assert "openjdk-17" in done.output
    assert not list((tmp_path / "cache").rglob("*.jar"))
