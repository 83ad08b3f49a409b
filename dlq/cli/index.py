"""`tidegate dlq groups | stats | ack | resolve`: dead letters by their kind, and work on them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dlq.cli import options as o
from dlq.cli.shown import CELL, warn_expiring, warn_stale, when
from dlq.document import moment, one_line, safe_json
from dlq.export import exported, group_document
from dlq.index.filters import LetterFilter
from dlq.index.groups import GROUP_STATES, GroupCursor
from dlq.index.history import HistoryFilter
from dlq.index.search import Document
from dlq.service import DeadLetterIndex, open_index, open_to_read
from tidegate.cli.output import print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.errors import ConfigError


@o.choosing(only=["topic", "source", "pipeline", "stage", "error", "rule", "since"])
def groups(
    pipeline: PipelineFile,
    wanted: LetterFilter,
    group: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="Everything about this one.")] = None,
    state: Annotated[
        o.Several, typer.Option(help="open, acknowledged or resolved. Default: what is not resolved.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Resolved ones, too.")] = False,
    order: Annotated[Literal["impact", "newest", "oldest"], typer.Option(help="What comes first.")] = "impact",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    after: o.AfterOption = None,
    index: o.IndexUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Show failures by their kind: how many, since when, how fast, and what has been done about them."""
    with open_to_read(load_pipeline(pipeline), index) as opened:
        warn_stale(opened)
        if group is not None:
            _show_group(opened, group, as_json)
            return
        states = o.known(state, GROUP_STATES) or (() if all_ else ("open", "acknowledged"))
        place = None if after is None else GroupCursor.parse(after, order)
        page = opened.reader.group_page(wanted, state=states, order=order, after=place, limit=limit)
        expiring = opened.expiring()
    if as_json:
        typer.echo(safe_json([group_document(row) for row in page.groups], indent=2))
    elif page.groups:
        columns = ["open", "count", "per hour", "group", "state", "stage", "error", "message", "first", "last"]
        print_table([_group_row(row) for row in page.groups], columns)
    else:
        typer.echo("no such groups: nothing has failed like this, or all of it is resolved (--all shows it)")
    if page.next is not None:
        typer.echo(f"more: --after {page.next}", err=as_json)
    if not as_json:
        warn_expiring(expiring, opened)


def stats(pipeline: PipelineFile, index: o.IndexUrl = None, as_json: o.AsJson = False) -> None:
    """Show totals: by stage, by topic, how many are open, the oldest of them, and what is about to expire."""
    with open_to_read(load_pipeline(pipeline), index) as opened:
        warn_stale(opened)
        found, expiring = opened.reader.stats(), opened.expiring()
    if as_json:
        oldest = {topic: moment(at) for topic, at in found["oldestOpen"].items()}
        typer.echo(safe_json({**found, "oldestOpen": oldest, "expiring": expiring}, indent=2))
        return
    states = ", ".join(f"{number} {state}" for state, number in sorted(found["groups"].items())) or "none"
    typer.echo(f"{found['letters']} dead letters, {found['open']} open; groups: {states}")
    stages = [{"stage": one_line(stage, CELL), **numbers} for stage, numbers in sorted(found["stages"].items())]
    print_table(stages, ["stage", "letters", "open"])
    topics = [
        {"topic": topic, "letters": number, "oldest open": moment(found["oldestOpen"].get(topic, -1))}
        for topic, number in sorted(found["topics"].items())
    ]
    print_table(topics, ["topic", "letters", "oldest open"])
    warn_expiring(expiring, opened)


def ack(
    pipeline: PipelineFile,
    group: o.Fingerprint,
    note: o.Note = "",
    index: o.IndexUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Say that somebody is looking at a group."""
    with open_index(load_pipeline(pipeline), index) as opened:
        opened.lifecycle.acknowledge(group, actor=o.actor(), note=note)
    done = {"group": group, "state": "acknowledged"}
    typer.echo(safe_json(done) if as_json else f"{group} is acknowledged")


def resolve(
    pipeline: PipelineFile,
    group: o.Fingerprint,
    note: o.Note = "",
    index: o.IndexUrl = None,
    yes: o.Yes = False,
    as_json: o.AsJson = False,
) -> None:
    """Close a group and its open dead letters by hand. It opens again by itself when it fails again."""
    o.require_answer(yes, as_json)
    with open_index(load_pipeline(pipeline), index) as opened:
        if not yes:
            number = _group(opened, group)["open"]
            typer.confirm(
                f"Close {number} open dead letters of {one_line(group, CELL)}? No replay takes them then", abort=True
            )
        closed = opened.lifecycle.resolve(group, actor=o.actor(), note=note)
    done = {"group": group, "state": "resolved", "letters": closed}
    typer.echo(safe_json(done) if as_json else f"{group} is resolved, {closed} dead letters closed")


def _show_group(opened: DeadLetterIndex, fingerprint: str, as_json: bool) -> None:
    found = _group(opened, fingerprint)
    history = opened.reader.history(HistoryFilter(group=fingerprint))
    if as_json:
        sample = None if found["sample"] is None else exported(found["sample"])
        typer.echo(safe_json({**group_document(found), "sample": sample, "history": history}, indent=2))
        return
    lines = {
        **{name: str(value) for name, value in _group_row(found).items()},
        "reopened": f"{found['reopened']} times" if found["reopened"] else "",
        "note": one_line(found["note"], 1000),
        **{facet: _numbered(values) for facet, values in found["facets"].items()},
        "sample": one_line(found["sample_id"], CELL),
    }
    typer.echo("\n".join(f"{name:<14}{value}" for name, value in lines.items() if value))
    for entry in history:
        note = one_line(entry["note"], 500)
        typer.echo(f"  {moment(entry['at'])}  {one_line(entry['actor'], 40)}  {entry['action']}  {note}".rstrip())


def _group(opened: DeadLetterIndex, fingerprint: str) -> Document:
    found = opened.reader.group(fingerprint)
    if found is None:
        raise ConfigError(
            "there is no group with this fingerprint",
            field="GROUP", value=fingerprint, expected="one that `tidegate dlq groups` shows",
        )  # fmt: skip
    return found


def _numbered(values: dict[str, int]) -> str:
    return ", ".join(f"{one_line(value, CELL)} ({count})" for value, count in list(values.items())[:10])


def _group_row(row: Document) -> Document:
    return {
        "open": row["open"],
        "count": row["count"],
        "per hour": row["rate"],
        "group": one_line(row["fingerprint"], CELL),
        "state": row["state"],
        "stage": one_line(row["stage"], CELL),
        "error": one_line(row["error_type"], CELL),
        "message": one_line(row["message"], CELL),
        "first": when(row["first_seen"]),
        "last": when(row["last_seen"]),
    }
