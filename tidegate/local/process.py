"""A process that cannot outlive the one that started it. Works from any thread, on Linux and macOS."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidegate.errors import StackError

_GUARD = Path(__file__).with_name("guard.py")


class GuardedProcess:
    """A command run under `guard.py`.

    Standard output and error go to the file `log`. `remove`: directories that the guard deletes if this process dies
    without having called `stop`. `stop_signal` asks the command to stop; after `grace` seconds it is killed with all
    its children.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: str = "TERM",
        grace: float = 5.0,
        remove: Sequence[Path] = (),
    ) -> None:
        self.command, self.log = tuple(str(word) for word in command), log
        self._grace = grace
        self._returncode: int | None = None
        self._said = b""
        report, write_end = os.pipe()
        options = ["--report", str(write_end), "--signal", stop_signal, "--grace", str(grace)]
        options += [word for directory in remove for word in ("--remove", str(directory))]
        options += ["--user", user] if user else []
        try:
            with log.open("ab") as output:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_GUARD), *options, "--", *self.command],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=env,
                    cwd=cwd,
                    pass_fds=(write_end,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(write_end)
        self._report = report
        self.pid = self._read_pid()
        """The command's own process id; it leads a session of its own."""

    def _read_pid(self) -> int:
        """Raises StackError when the command could not be started at all (the log says why)."""
        while b"\n" not in self._said:
            chunk = os.read(self._report, 256)
            if not chunk:
                self.stop()
                raise StackError(f"cannot start {self.command[0]}:\n{tail(self.log)}")
            self._said += chunk
        line, _, self._said = self._said.partition(b"\n")
        return int(line.split()[1])

    def poll(self) -> int | None:
        """The exit code once the command has ended (128 + n for signal n), else None."""
        while self._returncode is None:
            if self._said.startswith(b"exit ") and self._said.endswith(b"\n"):  # it may have come together with the pid
                self._returncode = int(self._said.split()[1])
            elif self._report < 0 or not select.select([self._report], [], [], 0)[0]:
                break
            elif chunk := os.read(self._report, 256):
                self._said += chunk
            else:
                self._returncode = self._guard.wait()
        return self._returncode

    @property
    def alive(self) -> bool:
        return self.poll() is None

    def wait(self) -> int:
        """Until the command has ended by itself. Returns its exit code."""
        while (code := self.poll()) is None:
            select.select([self._report], [], [])
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command and all its children; nothing happens when it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def pause(self) -> None:
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to the command and its children, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.stop()

    def stop(self) -> int:
        """Ask the command to stop, wait up to `grace`, then kill. Returns its exit code. Can be called again."""
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(b"bye\n")
                self._guard.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
        code = self._guard.wait()
        if self._report >= 0:
            os.close(self._report)
            self._report = -1
        if self._returncode is None:
            self._returncode = code
        return self._returncode


def free_ports(count: int) -> list[int]:
    """Loopback TCP ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def is_listening(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True


def tail(file: Path, lines: int = 15) -> str:
    """The last lines of a log, indented, for an error message."""
    try:
        text = file.read_text(errors="replace")
    except OSError as error:
        return f"  (no log: {error})"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (the log is empty)"
