"""Kafka and PostgreSQL together, in one private directory. Afterwards it is gone, with every process."""

from __future__ import annotations

import contextlib
import secrets
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from tidegate.local.guard import remove
from tidegate.local.kafka import EmbeddedKafka
from tidegate.local.postgres import EmbeddedPostgres
from tidegate.local.process import GuardedProcess


class LocalStack:
    """A context manager: inside it `kafka` and `postgres` answer on free loopback ports.

    However it ends (normally, by an exception, Ctrl-C, SIGTERM or even SIGKILL), no process and no directory stays.
    SIGTERM and SIGHUP raise SystemExit in the main thread, so that the way out is the usual one. Raises StackError
    when something cannot be started. What `run` has started is asked to stop; after an error or a signal it is killed.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.gettempdir()) / f"tidegate-{secrets.token_hex(4)}"
        """Private (mode 0700; as root others may pass through, for PostgreSQL's own user)."""
        self.kafka = EmbeddedKafka(self.directory / "kafka", remove=self.directory)
        self.postgres = EmbeddedPostgres(self.directory / "postgres", remove=self.directory)
        self._processes: list[GuardedProcess] = []
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> LocalStack:
        with contextlib.ExitStack() as undo:
            undo.callback(self._remove_directory)
            self.directory.mkdir(mode=0o700)
            undo.enter_context(_signals(_leave, signal.SIGTERM, signal.SIGHUP))
            undo.callback(self.postgres.stop)
            self.postgres.start()
            undo.callback(self.kafka.stop)
            self.kafka.start()
            undo.callback(self._stop_processes)
            self._exit = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:  # nobody waits for a worker to drain after Ctrl-C: all of this is deleted anyway
            for process in self._processes:
                process.kill()
        self._exit.close()

    def run(
        self, name: str, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, grace: float = 30.0
    ) -> GuardedProcess:
        """Start a process that ends before the servers do.

        Its log is `{name}.log` in the directory; `env` is its whole environment (None: ours).
        """
        log = self.directory / f"{name}.log"
        process = GuardedProcess(command, log=log, env=env, cwd=self.directory, grace=grace, remove=[self.directory])
        self._processes.append(process)
        return process

    def _stop_processes(self) -> None:
        for process in reversed(self._processes):
            process.stop()

    def _remove_directory(self) -> None:
        with _signals(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it takes 2 s at most
            remove(str(self.directory))


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _signals(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers, *numbers: signal.Signals
) -> Iterator[None]:
    """Inside it these signals are for `handler`; only in the main thread, which alone can handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
