"""A process of the demo that says over HTTP when it is ready: the worker, the agent of dead letters, their console."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence

from tidegate.errors import StackError
from tidegate.local.process import GuardedProcess, tail
from tidegate.local.stack import LocalStack

_START_TIMEOUT = 60.0  # s until it is ready; 4 s measured
_LOG_READ, _LOG_SHOWN = 400, 40  # lines of its log: read, and shown when it fails
_NOISE = ("nanobind:", "- leaked", "- ... skipped", "See https://nanobind")


class Service:
    """`name`: in messages, and of its log. `ready`: the URL that answers with 200 once it can be used."""

    def __init__(
        self, stack: LocalStack, name: str, command: Sequence[str], ready: str, environment: Mapping[str, str]
    ) -> None:
        self._stack, self._name, self._command, self._ready = stack, name, command, ready
        self._environment = environment
        self._process: GuardedProcess | None = None

    @property
    def process(self) -> GuardedProcess:
        """The newest. Must have been started."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Start a process, or another one after the last has ended. Does not wait until it is ready."""
        self._process = self._stack.run(self._name, self._command, env=self._environment)

    def wait_ready(self) -> None:
        """Raises StackError when it ends before, or takes longer than a minute."""
        deadline = time.monotonic() + _START_TIMEOUT
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise StackError(f"the {self._name} was not ready within {_START_TIMEOUT:.0f} s:\n{self.log_end()}")
            time.sleep(0.1)

    def is_ready(self) -> bool:
        """Raises StackError when it has ended."""
        self.require()
        try:
            with urllib.request.urlopen(self._ready, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def require(self) -> None:
        """Raises StackError when it has ended."""
        if not self.process.alive:
            raise StackError(f"the {self._name} ended with code {self.process.poll()}:\n{self.log_end()}")

    def log_end(self) -> str:
        """The end of its log, without what DuckDB's binding adds when the interpreter ends on an error."""
        lines = tail(self.process.log, _LOG_READ).splitlines()
        return "\n".join([line for line in lines if not line.lstrip().startswith(_NOISE)][-_LOG_SHOWN:])
