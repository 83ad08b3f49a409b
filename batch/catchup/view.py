"""A catch-up as people see it: a bar of what is left on a terminal, log events elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from batch.report import Report
from batch.sink import Commit
from tidegate.errors import DependencyError, StoreHeld

log = structlog.get_logger(__name__)


class View:
    """Shows one catch-up. `progress`: the bar; None: there is no terminal, so that events are logged."""

    def __init__(self, pipeline: str, progress: Progress | None) -> None:
        self._pipeline, self._progress = pipeline, progress
        self._task = progress.add_task(f"{pipeline}: starting", total=None, left="") if progress is not None else None
        self._read, self._held = 0, False

    def starting(self, what: str) -> None:
        if not self._held:
            self._show(f"starting {what}; workers go on")

    def held_by_another(self, error: StoreHeld) -> None:
        self._show(f"{error}: waiting until that expires")
        if self._progress is None:
            log.warning("catchup.waiting", held_by=error.holder, since=str(error.since))

    def holding(self) -> None:
        self._held = True
        self._show("workers wait; the first micro-batch takes longest")
        if self._progress is None:
            log.info("catchup.holding", meaning="workers wait until it is let go of")

    def committed(self, report: Report, commit: Commit, lag: int | None) -> None:
        read = sum(ledger.read for ledger in commit.ledgers.values())
        self._read += read
        if self._progress is not None and self._task is not None:
            total = None if lag is None else self._read + lag
            left = "? left" if lag is None else f"{lag:,} left".replace(",", " ")
            self._progress.update(self._task, completed=self._read, total=total, left=left)
        self._show("draining")
        if self._progress is None:
            log.info("catchup.committed", records=read, left=lag, dead_lettered=commit.dead)

    def published(self, sink: str, results: Mapping[str, int]) -> None:
        """Never: a catch-up writes to the database alone."""

    def timed_out(self, windows: Mapping[str, int]) -> None:
        """It is in the log."""

    def waiting(self, error: DependencyError, seconds: float) -> None:
        self._show(f"waiting {seconds:.1f} s: {error}")  # the run logs it

    def handed_back(self, lag: int | None) -> None:
        self._show("handed back")
        if self._progress is None:
            log.info("catchup.handed_back", left=lag)

    def end(self) -> None:
        """Nothing is shown any more: the terminal is free for the result."""
        if self._progress is not None:
            self._progress.stop()

    def _show(self, text: str) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=f"{self._pipeline}: {text}")


@contextmanager
def view(pipeline: str, stream: TextIO) -> Iterator[View]:
    """A view on `stream`, over when the block ends."""
    console = Console(file=stream)
    if not console.is_terminal:
        yield View(pipeline, None)
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield View(pipeline, progress)
