"""A preview, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dlq.document import one_line
from tidegate.cli.output import print_table

if TYPE_CHECKING:
    from dlq.replay.diff import Diff
    from dlq.replay.preview import Preview, Why

_CELL = 160  # characters


def print_preview(found: Preview) -> None:
    """How many, to where, how many would pass; why the others would not; what mending changes."""
    targets = ", ".join(f"{number} to {topic}" for topic, number in found.targets.most_common())
    typer.echo(f"{found.chosen} dead letters" + (f": {targets}" if targets else ""))
    sent = found.passing + found.failing
    if sent > found.unchecked:
        typer.echo(f"{found.passing - found.unchecked} of {sent - found.unchecked} would pass now{_stops(found)}")
    if found.unchecked:
        typer.echo(f"{found.unchecked} go to topics that this pipeline does not read: nothing can be said of them")
    if found.busy:
        typer.echo(f"{found.busy} more are in another job that is not finished, and are left out")
    if found.whys:
        print_table([_row(why) for why in found.reasons()], ["fail", "stage", "why", "message", "such as"])
    if found.not_sent:
        rows = [_row(why) for why in sorted(found.not_sent.values(), key=lambda why: -why.count)]
        names = {"fail": "not sent", "why": "why", "message": "message", "such as": "such as"}
        print_table(rows, names)
    if found.edited:
        typer.echo(f"{found.edited} are mended, such as")
        for diff in found.diffs:
            _print_diff(diff)


def _stops(found: Preview) -> str:
    if found.stops_before is None:
        return ""
    return f" (as far as handler {found.stops_before}, which is not called: it does not say `preview: true`)"


def _row(why: Why) -> dict[str, object]:
    return {
        "fail": why.count,
        "stage": why.stage,
        "why": one_line(why.name, _CELL),
        "message": one_line(why.message, _CELL),
        "such as": one_line(", ".join(why.examples), _CELL),
    }


def _print_diff(diff: Diff) -> None:
    typer.echo(f"  {one_line(diff.id, _CELL)}")
    for name, (before, after) in diff.fields.items():
        for sign, shown in (("-", before), ("+", after)):
            if shown is not None:
                typer.echo(f"    {sign} {one_line(name, 80)}: {one_line(shown, 400)}")
    if not diff.fields:
        typer.echo("    what changes is masked")
