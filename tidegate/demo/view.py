"""The live view: what streams, how far each partition is, what was set apart and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tidegate.clock import Clock
from tidegate.demo.metrics import Snapshot

_RATE_OVER = 3.0  # s; shorter jumps with every batch, longer hides a stall
_PLAIN_EVERY = 5.0  # s between two lines where there is no terminal to draw on


@dataclass(frozen=True, slots=True)
class Progress:
    """What is drawn: `produced` of `total` records are in the topic, and the pipeline's numbers. `who`: who has it, where
    that changes."""

    produced: int
    total: int
    worker: Snapshot
    who: str | None = None


class RateMeter:
    """Records per second over the last three seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, records: int) -> float:
        """The rate, given the number of records so far."""
        now = self._clock.monotonic()
        self._seen.append((now, records))
        while len(self._seen) > 2 and now - self._seen[0][0] > _RATE_OVER:
            self._seen.popleft()
        start, before = self._seen[0]
        elapsed = now - start
        return (records - before) / elapsed if elapsed > 0 else 0.0


class LiveView:
    """A context manager. On a terminal it draws in place; elsewhere it prints a line every five seconds."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console, self._clock = console, clock
        self._started = clock.monotonic()
        self._rate = RateMeter(clock)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_line = self._started

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, text: str | Text) -> None:
        """A line that stays, above what is drawn, with the seconds so far."""
        said = Text(text) if isinstance(text, str) else text
        elapsed = self._clock.monotonic() - self._started
        self._console.print(Text.assemble(f"{elapsed:4.0f} s  ", said), soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Draw the newest numbers."""
        elapsed, rate = self._clock.monotonic() - self._started, self._rate.add(progress.worker.records)
        if self._live is not None:
            self._live.update(draw(progress, rate, elapsed), refresh=True)
        elif self._clock.monotonic() >= self._next_line:
            self._next_line += _PLAIN_EVERY
            self._console.print(one_line(progress, rate, elapsed), soft_wrap=True)


def one_line(progress: Progress, rate: float, elapsed: float) -> Text:
    """The numbers that matter most, for a log. `rate`: records/s; `elapsed`: s."""
    worker = progress.worker
    return Text(
        f"{elapsed:4.0f} s  produced {progress.produced:,} of {progress.total:,}  processed {worker.records:,}  "
        f"{rate:,.0f} records/s  lag {worker.lag:,}  late {worker.processed.get('late', 0):,}  "
        f"dead letters {worker.processed.get('dead_lettered', 0):,}"
        f"{'' if progress.who is None else f'  with {progress.who}'}"
    )


def draw(progress: Progress, rate: float, elapsed: float) -> RenderableType:
    """The whole picture. `rate`: records/s; `elapsed`: s."""
    worker = progress.worker
    head = Text.assemble(
        ("tidegate demo  ", "bold"),
        f"{elapsed:.0f} s  produced {progress.produced:,} of {progress.total:,}  processed {worker.records:,}  ",
        (f"{rate:,.0f} records/s", "bold green"),
        f"  lag {worker.lag:,}",
    )
    return Group(
        head,
        *([] if progress.who is None else [_owner(progress.who)]),
        _side_by_side(_partitions(worker), _windows(worker), _outcomes(worker)),
        _side_by_side(_dead_letters(worker), _breakers(worker)),
    )


def _side_by_side(*tables: Table) -> Columns:
    """Those that have a row: while no worker runs, nobody knows of windows."""
    return Columns([table for table in tables if table.row_count], padding=(0, 3))


def _owner(who: str) -> Text:
    style = {"worker": "green", "Spark": "yellow"}.get(who.split()[0], "red")
    return Text.assemble(("who has the pipeline: ", "bold"), (who, f"bold {style}"))


def _partitions(worker: Snapshot) -> Table:
    table = _table("partition", "lag", "watermark (UTC)")
    for partition, at in worker.partitions.items():
        table.add_row(str(partition), f"{at.lag:,}", _moment(at.watermark))
    return table


def _windows(worker: Snapshot) -> Table:
    table = _table("windows", "open", "closed")
    for name in sorted({*worker.windows_open, *worker.windows_closed}):
        table.add_row(name, f"{worker.windows_open.get(name, 0):,}", f"{worker.windows_closed.get(name, 0):,}")
    return table


def _outcomes(worker: Snapshot) -> Table:
    return _counts("records", {name.replace("_", "-"): count for name, count in worker.processed.items() if count})


def _dead_letters(worker: Snapshot) -> Table:
    return _counts("dead letters", {f"{stage}: {error}": n for (stage, error), n in worker.dead_letters.items()})


def _breakers(worker: Snapshot) -> Table:
    table = _table("breaker", "state")
    for name, state in worker.breakers.items():
        table.add_row(name, Text(state.replace("_", "-"), style="green" if state == "closed" else "bold red"))
    return table


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = _table(title, "count")
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{count:,}")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="bold cyan", padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _moment(seconds: float | None) -> str:
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y %H:%M")
