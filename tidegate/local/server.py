"""What a real server on this machine has in common with the others, whatever it serves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from tidegate.local.process import GuardedProcess


class LocalServer(ABC):
    """One server process. Data and port stay the same over `stop`, `kill` and the next `start`.

    `port` 0: any free one, known after `start`. `remove`: what is deleted when this process dies without a `stop` (default: the
    directory).
    """

    def __init__(self, directory: Path, port: int, remove: Path | None) -> None:
        self.directory, self.port = directory, port
        self._remove = remove or directory
        self._any_port = port == 0
        self._process: GuardedProcess | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    @abstractmethod
    def start(self) -> Self:
        """Returns when it answers. Raises StackError when it cannot be started."""

    def stop(self) -> None:
        """In good order, and by SIGKILL when that takes longer than 10 s."""
        if self._process is not None:
            self._process.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """As a crash: SIGKILL. `start` brings it back with its data."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """SIGSTOP to it and its children: connections stay open and nothing answers."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        if self._process is not None:
            self._process.resume()
