"""Runs one command for exactly as long as whoever started this process lives.

Executed as a script of its own (`python -I -S guard.py ...`), so it imports nothing but the standard library. Its
standard input is a pipe whose other end the starter holds: when that closes, for whatever reason (even SIGKILL), the
command's whole session is ended and the directories given with `--remove` are deleted. On Linux the command also dies
with the guard itself.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_ORDERLY = b"bye\n"
"""What the starter writes before it closes the pipe on purpose: then the directories are its own affair."""


def main() -> int:
    """Start the command, report its pid and exit code, and end it when it must end. Returns that exit code."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the pipe decides; a Ctrl-C is meant for the starter
    try:
        child = _start(options)
    except OSError as error:
        print(f"{options.command[0]}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201 - this is the log's line
        return 127
    _report(options.report, f"pid {child.pid}")
    closed, orderly = _wait_for_either(child)
    if not closed:
        _kill_session(child.pid)  # the command ended by itself; what it left behind goes too
        _report(options.report, f"exit {_exit_code(child)}")
        orderly = _wait_for_pipe()
    elif child.poll() is None:
        _end(child, signal.Signals[f"SIG{options.signal}"], options.grace)
    _kill_session(child.pid)
    if not orderly:
        for directory in options.remove:
            remove(directory)
    return _exit_code(child)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", type=int, required=True, help="file descriptor to write the command's pid to")
    parser.add_argument("--signal", default="TERM", help="the signal that asks the command to stop")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds it may take before it is killed")
    parser.add_argument("--user", help="user to run the command as")
    parser.add_argument("--remove", action="append", default=[], help="directory to delete when the starter died")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def _start(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    guard = os.getpid()

    def die_with_guard() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(1)

    identity = {"user": options.user, "group": _group_of(options.user), "extra_groups": []} if options.user else {}
    return subprocess.Popen(  # preexec_fn is safe here: this process has one thread
        options.command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_guard, **identity
    )


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _report(descriptor: int, line: str) -> None:
    with contextlib.suppress(OSError):  # the starter may be gone already: the closed pipe says so
        os.write(descriptor, f"{line}\n".encode())


def _exit_code(child: subprocess.Popen[bytes]) -> int:
    """As a shell has it: 128 + n when signal n ended the command."""
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _wait_for_either(child: subprocess.Popen[bytes]) -> tuple[bool, bool]:
    """Until the command ends or the pipe closes. Returns whether the pipe closed, and whether that was on purpose."""
    while child.poll() is None:
        if select.select([0], [], [], 0.1)[0]:
            return True, _wait_for_pipe()
    return False, False


def _wait_for_pipe() -> bool:
    """Until the pipe closes. True: the starter closed it on purpose."""
    said = b""
    while chunk := os.read(0, 64):
        said += chunk
    return said.endswith(_ORDERLY)


def _end(child: subprocess.Popen[bytes], number: signal.Signals, grace: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, number)
        os.killpg(child.pid, signal.SIGCONT)  # a paused command cannot stop
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        _kill_session(child.pid)
        child.wait()


def _kill_session(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def remove(directory: str) -> None:
    """Delete it with all that is in it, within 2 s."""
    for _ in range(20):  # a killed child may still be writing for a moment
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.exists(directory):
            break
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
