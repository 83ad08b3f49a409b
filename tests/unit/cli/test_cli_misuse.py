"""What a person does wrong on the command line ends in an error that says what and the way out, never in a traceback."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import pytest
import typer.testing

from tidegate.cli.main import app as tidegate

READING = (["check"], ["status"], ["ledger"], ["worker"], ["dlq", "list"], ["dlq", "groups"], ["dlq", "agent"])


def run(*words: str | Path) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    done = typer.testing.CliRunner().invoke(tidegate, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_the_file_is_not_what_was_meant(command: list[str], tmp_path: Path) -> None:
    """A path that is not there, a directory, and something else than text: exit code 2, the path, and the way out."""
    code, said = run(*command, tmp_path / "nowhere.yaml")
    assert (code, "there is no such file" in said, "tidegate init" in said) == (2, True, True)
    code, said = run(*command, tmp_path)
    assert (code, f"{tmp_path}: the file cannot be read: Is a directory" in said) == (2, True)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    code, said = run(*command, tmp_path / "binary.yaml")
    assert (code, "not UTF-8 text: byte 128" in said) == (2, True)
    code, said = run(*command)
    assert (code, "Missing argument" in said, "--help" in said) == (2, True, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["status"], ":3: kafka.tls.caFile: this file cannot be used"),
        (["ledger"], ":3: kafka.tls.caFile: this file cannot be used"),
        (["dlq", "list"], ":3: kafka.tls.caFile: this file cannot be used"),
        (["dlq", "resolve", "abc"], ":4: deadLetters.index: "),
        (["dlq", "jobs", "list"], ":4: deadLetters.index: "),
        (["batch", "archive", "--to", "a"], ":3: kafka.tls.caFile: this file cannot be used"),
        (["batch", "run"], ":5: sinks: a batch run keeps its state"),
        (["batch", "catchup"], ":5: sinks: a batch run keeps its state"),
        (["batch", "backfill", "--late"], ":5: sinks: a backfill amends"),
        (["batch", "backfill", "--promote"], ":5: sinks: a backfill amends"),
        (["batch", "list"], ":5: sinks: a batch run keeps its state"),
        (["batch", "status"], ":5: sinks: a batch run keeps its state"),
        (["batch", "stop"], ":5: sinks: a batch run keeps its state"),
        (["batch", "run", "--trigger", "soon"], "error: --trigger: no such trigger"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_is_found_after_loading_names_the_file_too(command: list[str], said: str, tmp_path: Path) -> None:
    """Exit code 2, the file, the line and the field; what is wrong with an option is not said to stand in the file."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "pipelineId: p\nsource: {topics: [t]}\nkafka: {tls: {caFile: /no/such.pem}}\n"
        f"deadLetters: {{index: 'sqlite:///{tmp_path}/none.sqlite'}}\nsinks: [{{type: kafka}}]\n"
        "schema: [{name: a, type: int}]\n"
    )
    position = 2 if command[0] in ("batch", "dlq") else 1
    position += command[:2] == ["dlq", "jobs"]
    code, output = run(*command[:position], file, *command[position:])
    assert code == 2, output
    assert (said if said.startswith("error") else f"error: {file}{said}") in output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Said as such."""
    (tmp_path / "secret.yaml").touch(mode=0)
    code, said = run("check", tmp_path / "secret.yaml")
    assert (code, "the file cannot be read: Permission denied" in said) == (2, True)


def test_init_into_a_directory(tmp_path: Path) -> None:
    """Not called a file that is there, which `--force` would write over."""
    code, said = run("init", tmp_path)
    assert (code, f"{tmp_path}: this is a directory" in said, "--force" in said) == (2, True, False)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_variable_that_is_not_set(command: list[str], tmp_path: Path) -> None:
    """The field, the variable, and both ways out."""
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps({"pipelineId": "p", "sinks": [{"type": "postgres", "url": "${NO_SUCH_URL}"}]}))
    code, said = run(*command, file)
    assert code == 2
    assert "sinks[0].url: the environment variable NO_SUCH_URL is not set" in said
    assert "export NO_SUCH_URL, or write ${NO_SUCH_URL:-default}" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chek", "x"], "check"),
        (["dlq", "lst", "x"], "list"),
        (["check", "--liv", "x"], "--live"),
        (["check", "x", "y"], "unexpected extra argument"),
        (["check", "--timeout", "soon", "x"], "Input should be a valid number"),
        (["check", "--timeout", "-1", "x"], "greater than or equal to 0.1"),
        (["schema", "x"], "unexpected extra argument"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_misspelt_command_or_option(words: list[str], said: str) -> None:
    """Exit code 2; the nearest right one where there is one, else what is wrong with what was given."""
    code, output = run(*words)
    assert code == 2
    assert said in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "said"),
    [("", "TIDEGATE_PIPELINE is not set"), ("nowhere.yaml", "nowhere.yaml: there is no such file")],
)
def test_faust_without_a_pipeline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pipeline: str, said: str
) -> None:
    """What `faust -A worker.app worker` imports names the variable or the file, and ends with exit code 2."""
    monkeypatch.setenv("TIDEGATE_PIPELINE", pipeline)
    monkeypatch.delitem(sys.modules, "worker.app", raising=False)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("worker.app")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
