"""How a worker ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tidegate.errors import (
    BrokerUnavailable,
    ConfigError,
    FloodGuardTripped,
    OffsetOutOfRange,
    PipelineAborted,
    RowTooLarge,
)
from transport.lifecycle import exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), 2),
        (FloodGuardTripped("too many"), 65),
        (PipelineAborted("a rule"), 65),
        (OffsetOutOfRange("gone"), 66),
        (RowTooLarge("results", 1), 1),
        (BrokerUnavailable("away"), 1),
        (AssertionError("a bug"), 1),
    ],
)
def test_the_exit_code_says_whether_starting_again_can_help(error: Exception, code: int) -> None:
    """2: the configuration; 65: the data; 66: the log; 1: anything else."""
    assert exit_code(error) == code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("app", "command"),
    [("worker.app", "tidegate worker pipeline.yaml"), ("dlq.app", "tidegate dlq agent pipeline.yaml")],
)
def test_a_process_without_a_pipeline_says_what_to_do(app: str, command: str) -> None:
    """No traceback: the variable, what it takes, and both commands; exit code 2."""
    ended = subprocess.run([sys.executable, "-c", f"import {app}"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "TIDEGATE_PIPELINE is not set" in ended.stderr
    assert command in ended.stderr
    assert "Traceback" not in ended.stderr
