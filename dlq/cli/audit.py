"""`tidegate dlq audit`: who did what to which groups, letters and jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from dlq.cli import options as o
from dlq.document import moment, one_line, safe_json
from dlq.export import entry_document
from dlq.index.history import HistoryFilter
from dlq.service import open_index
from tidegate.cli.output import print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline

_CELL = 120  # characters


def audit(
    pipeline: PipelineFile,
    by: Annotated[str | None, typer.Option("--actor", help="What this user, or token, has done.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this: acknowledge, resolve, reveal, …")] = None,
    group: Annotated[str | None, typer.Option(help="To this group (fingerprint).")] = None,
    id: Annotated[str | None, typer.Option("--id", help="To this dead letter.")] = None,
    job: Annotated[str | None, typer.Option(help="With this job.")] = None,
    before: Annotated[int | None, typer.Option(min=0, help="Older than this entry, the last one of a page.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    index: o.IndexUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Show who did what, newest first: acts on groups and dead letters, replays, reveals with their reasons."""
    with open_index(load_pipeline(pipeline), index) as opened:
        entries = opened.reader.history(HistoryFilter(by, action, group, id, job), before=before, limit=limit)
    if as_json:
        typer.echo(safe_json([entry_document(entry) for entry in entries], indent=2))
        return
    if not entries:
        typer.echo("nothing has been done yet that these options choose")
        return
    columns = ["entry", "when", "actor", "action", "group", "id", "note"]
    rows = [
        {
            "entry": entry["entry"],
            "when": (moment(entry["at"]) or "")[:19].replace("T", " "),
            "actor": one_line(entry["actor"], _CELL),
            "action": one_line(entry["action"], _CELL),
            "group": one_line(entry["fingerprint"] or "", _CELL),
            "id": one_line(entry["id"] or "", _CELL),
            "note": one_line(entry["note"] or "", _CELL),
        }
        for entry in entries
    ]
    print_table(rows, columns)
