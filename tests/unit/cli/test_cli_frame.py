"""The command line frame: fast help, commands by name, errors a person can read."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tidegate.cli.main import COMMANDS, app, load_command, print_error
from tidegate.errors import ConfigError

HEAVY = (
    *("duckdb", "pyarrow", "faust", "pyspark", "psycopg", "confluent_kafka", "aiokafka", "pydantic", "rich.table"),
    "sqlalchemy",
)


def test_help_lists_every_command() -> None:
    """`tidegate --help` shows each command with what it does, in full."""
    shown = CliRunner().invoke(app, ["--help"]).output
    for name, command in COMMANDS.items():
        assert f"  {name} " in shown
        assert command.help in shown


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    """`tidegate --help` imports none of the engines, nor the configuration."""
    script = (
        "import sys; sys.argv = ['tidegate', '--help']\n"
        "from tidegate.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        f"sys.exit(','.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_help_answers_at_once() -> None:
    """The best of five runs of `tidegate --help` takes well under half a second of processor time."""
    best = 10.0
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-m", "tidegate.cli.main", "--help"], capture_output=True, check=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, used)
    assert best < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_there(name: str) -> None:
    """Every command of the table can be loaded and has help of its own."""
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0, shown.output
    assert "Usage" in shown.output


def test_misspelt_command_is_answered_with_the_right_one() -> None:
    """An unknown command is an error that names the nearest one."""
    shown = CliRunner().invoke(app, ["chekc"])
    assert shown.exit_code == 2
    assert "Did you mean 'check'?" in shown.output


def test_subcommands_are_reached_through_their_group() -> None:
    """A `typer.Typer` in the table is a group, even with a single command."""
    assert load_command("dlq").commands  # imports dlq.cli


def test_error_has_a_clear_text_and_no_traceback(tmp_path: object) -> None:
    """A wrong file ends with `error: …` on stderr and exit code 2."""
    done = CliRunner().invoke(app, ["check", f"{tmp_path}/nothing.yaml"])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "there is no such file" in done.stderr
    assert "Traceback" not in done.output


def test_debug_lets_the_error_through(tmp_path: object) -> None:
    """`--debug` or TIDEGATE_DEBUG=1 gives the traceback instead."""
    for arguments, environment in ((["--debug"], {}), ([], {"TIDEGATE_DEBUG": "1"})):
        done = CliRunner().invoke(app, [*arguments, "check", f"{tmp_path}/nothing.yaml"], env=environment)
        assert isinstance(done.exception, ConfigError)


def test_only_the_first_line_is_red(capsys: pytest.CaptureFixture[str]) -> None:
    """What was found and expected stands below the error, plain."""
    print_error(ConfigError("wrong", field="a.b", value=1, expected="two"))
    assert capsys.readouterr().err == "error: a.b: wrong\n  found:    1\n  expected: two\n"
