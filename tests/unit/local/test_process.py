"""Processes that cannot outlive their starter."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tidegate.errors import StackError
from tidegate.local.process import GuardedProcess, free_ports, is_listening, tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_command_that_ends_by_itself_has_its_exit_code(log: Path) -> None:
    """`stop` returns what the command returned, and its output is in the log."""
    process = GuardedProcess(["sh", "-c", "echo out; echo err >&2; exit 3"], log=log)
    psutil.wait_procs([psutil.Process(process.pid)] if psutil.pid_exists(process.pid) else [], timeout=5)
    assert process.stop() in (3, 143)  # 143 when it was asked to stop before it could end
    assert process.stop() == process.poll()


def test_the_exit_code_is_seen_without_stopping(log: Path) -> None:
    """`poll` and `alive` notice a command that died."""
    process = GuardedProcess(["sh", "-c", "exit 3"], log=log)
    while process.alive:
        pass
    assert process.poll() == 3
    assert process.stop() == 3


def test_the_end_of_a_command_can_be_waited_for(log: Path) -> None:
    """`wait` returns when it ends by itself, however long that takes."""
    process = GuardedProcess(["sh", "-c", "sleep 0.1; exit 3"], log=log)
    assert process.wait() == process.wait() == process.stop() == 3


def test_a_signal_is_reported_as_a_shell_does(log: Path) -> None:
    """SIGTERM is 143 and SIGKILL 137."""
    stopped, killed = GuardedProcess(["sleep", "60"], log=log), GuardedProcess(["sleep", "60"], log=log)
    assert stopped.stop() == 128 + signal.SIGTERM
    killed.kill()
    assert killed.poll() == 128 + signal.SIGKILL


@pytest.mark.slow
def test_a_command_that_ignores_the_signal_is_killed_with_its_children(log: Path) -> None:
    """After the grace nothing of its session is left, not even a grandchild."""
    script = "trap '' TERM; sleep 60 & echo $!; while :; do sleep 1; done"
    process = GuardedProcess(["sh", "-c", script], log=log, grace=0.1)
    while not (text := log.read_text()).endswith("\n"):
        pass
    assert process.stop() == 137
    _, alive = psutil.wait_procs([psutil.Process(int(text))] if psutil.pid_exists(int(text)) else [], timeout=5)
    assert not alive


def test_a_paused_command_can_still_be_stopped(log: Path) -> None:
    """SIGSTOP does not make a process immortal."""
    process = GuardedProcess(["sleep", "60"], log=log, grace=5)
    process.pause()
    assert process.stop() in (143, 137)


def test_a_command_that_does_not_exist_says_so(log: Path) -> None:
    """The error names the command and the reason."""
    with pytest.raises(StackError, match=r"(?s)cannot start /nowhere/kafka:.*No such file"):
        GuardedProcess(["/nowhere/kafka"], log=log)


_STARTER = """
import os, signal, sys
from pathlib import Path
from tidegate.local.process import GuardedProcess
directory = Path(sys.argv[1])
process = GuardedProcess(["sleep", "60"], log=directory / "log", remove=[directory])
print(process.pid, process._guard.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_sigkill_of_the_starter_ends_the_command_and_removes_its_directory(tmp_path: Path) -> None:
    """The guard notices that nobody holds its pipe any more."""
    directory = tmp_path / "private"
    directory.mkdir()
    starter = subprocess.run(
        [sys.executable, "-c", _STARTER, str(directory)], capture_output=True, text=True, check=False
    )
    assert starter.returncode == -signal.SIGKILL, starter.stderr
    processes = [psutil.Process(int(pid)) for pid in starter.stdout.split() if psutil.pid_exists(int(pid))]
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert not directory.exists()


@pytest.mark.slow
def test_sigkill_of_the_guard_ends_the_command_too(log: Path) -> None:
    """On Linux the kernel does it: the command's parent is gone."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells a process of its parent's death")
    process = GuardedProcess(["sleep", "60"], log=log)
    command = psutil.Process(process.pid)
    process._guard.kill()
    _, alive = psutil.wait_procs([command], timeout=5)
    assert not alive
    process.stop()


def test_free_ports_are_different_and_silent() -> None:
    """Ports that were handed out together differ, and nobody listens on them."""
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert not any(is_listening(port) for port in ports)


def test_the_tail_of_a_log_is_its_last_lines(log: Path) -> None:
    """An error message shows the end of the log, or that there is none."""
    assert "no log" in tail(log)
    log.write_text("\n".join(str(number) for number in range(100)))
    assert tail(log, 2) == "  98\n  99"
