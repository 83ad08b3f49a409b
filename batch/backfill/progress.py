"""A backfill as people see it: a progress bar on a terminal, log events elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

log = structlog.get_logger(__name__)


class Bars:
    """One bar per phase. `progress`: None where there is no terminal."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def phase(self, what: str, total: int | None = None) -> None:
        if self._progress is None:
            log.info("backfill.phase", what=what, records=total)
            return
        if self._task is not None:
            self._progress.stop_task(self._task)
        self._task = self._progress.add_task(what, total=total)

    def advance(self, count: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)


@contextmanager
def bars(stream: TextIO) -> Iterator[Bars]:
    """On `stream`, gone when the block ends."""
    console = Console(file=stream)
    if not console.is_terminal:
        yield Bars(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress)
