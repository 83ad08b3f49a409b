"""A run as people see it: a line that is kept up to date on a terminal, log events elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

import structlog
from rich.console import Console
from rich.status import Status

from batch.report import Report
from batch.sink import Commit
from tidegate.errors import DependencyError

log = structlog.get_logger(__name__)


class Watching:
    """Shows one run. `status`: the line on the terminal; None: there is no terminal, so that events are logged."""

    def __init__(self, pipeline: str, status: Status | None) -> None:
        self._pipeline, self._status = pipeline, status
        self._since: float | None = None

    def starting(self, what: str) -> None:
        self._show(f"starting: {what}")

    def committed(self, report: Report, commit: Commit, lag: int | None) -> None:
        now = time.monotonic()
        seconds = now - self._since if self._since is not None else report.seconds
        self._since = now
        read = sum(ledger.read for ledger in commit.ledgers.values())
        rate = f"{read / seconds:,.0f} records/s".replace(",", " ") if seconds else ""
        total, left = report.total, "?" if lag is None else lag
        self._show(
            f"micro-batch {report.batches}  {rate}  lag {left}  read {total.read}  accepted {total.accepted}  "
            f"dead-lettered {total.dead_lettered}  late {total.late}"
        )
        if self._status is None:
            log.info("batch.committed", batch=report.batches, records=read, lag=lag, dead_lettered=commit.dead)

    def published(self, sink: str, results: Mapping[str, int]) -> None:
        if self._status is None and results:
            log.info("batch.published", sink=sink, results=sum(results.values()))

    def timed_out(self, windows: Mapping[str, int]) -> None:
        """It is in the log, and in the result."""

    def waiting(self, error: DependencyError, seconds: float) -> None:
        self._show(f"waiting {seconds:.1f} s: {error}")

    def end(self) -> None:
        """Nothing is shown any more: the terminal is free for the result."""
        if self._status is not None:
            self._status.stop()

    def _show(self, text: str) -> None:
        if self._status is not None:
            self._status.update(f"{self._pipeline}: {text}")


@contextmanager
def watch(pipeline: str, stream: TextIO) -> Iterator[Watching]:
    """A watch on `stream`, over when the block ends."""
    console = Console(file=stream)
    if not console.is_terminal:
        yield Watching(pipeline, None)
        return
    with console.status("starting") as status:
        yield Watching(pipeline, status)
