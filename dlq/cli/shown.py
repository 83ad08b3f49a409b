"""What several commands show in the same way: times, and warnings beside an answer."""

from __future__ import annotations

import typer

from dlq.document import moment, one_line
from dlq.index.search import Document
from dlq.service import AT_WORK, DeadLetterIndex
from tidegate.config.durations import format_duration

CELL = 120  # characters
_MINUTE = 60_000


def when(ms: int) -> str | None:
    """A time in a cell: to the second, UTC, with a blank where a narrow table can break it."""
    text = moment(ms)
    return None if text is None else text[:19].replace("T", " ")


def warn_expiring(expiring: list[Document], opened: DeadLetterIndex) -> None:
    """On stderr: what retention deletes soon."""
    now = int(opened.clock.time() * 1000)
    for entry in expiring:
        left = max(0, entry["at"] - now) // _MINUTE * _MINUTE
        then = f"in {format_duration(left)}" if left else "now"
        name, topic = one_line(entry["fingerprint"], CELL), entry["dlq_topic"]
        typer.echo(f"warning: {entry['count']} dead letters of {name} expire in {topic}, the first {then}", err=True)


def warn_stale(opened: DeadLetterIndex) -> None:
    """On stderr: no agent is at work, so that the index does not know what came last."""
    looked = opened.looked()
    if looked is not None and int(opened.clock.time() * 1000) - looked > AT_WORK:
        typer.echo(
            f"warning: no agent has looked at the topics since {when(looked)}: what came later is missing", err=True
        )
