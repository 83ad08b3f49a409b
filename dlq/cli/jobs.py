"""`tidegate dlq jobs list | show | pause | resume | cancel`: replays under way, and what became of each letter."""

from __future__ import annotations

from typing import Annotated

import typer

from dlq.cli import options as o
from dlq.cli.following import summary
from dlq.document import moment, one_line, safe_json
from dlq.export import job_document
from dlq.index.history import HistoryFilter
from dlq.replay.jobs import Job
from dlq.replay.names import FAILED_AGAIN, JOB_STATES, LOOP, OK
from dlq.service import open_index
from tidegate.cli.output import print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline

_CELL = 160  # characters
_COLUMNS = ["job", "state", "created", "letters", "processed", "ok", "failed again", "loop", "actor", "reason"]

jobs = typer.Typer(no_args_is_help=True, help="Replays under way, and what became of each dead letter.")


@jobs.command("list")
def list_(
    pipeline: PipelineFile,
    state: Annotated[
        o.Several, typer.Option(help=f"Only {', '.join(JOB_STATES)} ones. The option can be repeated.")
    ] = None,
    before: Annotated[str | None, typer.Option(help="Only those older than this job, the last one of a page.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    index: o.IndexUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """List replay jobs, newest first."""
    with open_index(load_pipeline(pipeline), index) as opened:
        found = opened.jobs.newest(limit, state=o.known(state, JOB_STATES), before=before)
        documents = [job_document(job, opened.jobs.outcomes(job.id)) for job in found]
    if as_json:
        typer.echo(safe_json(documents, indent=2))
        return
    rows = [
        {
            **document,
            "failed again": document["outcomes"].get(FAILED_AGAIN, 0),
            "loop": document["outcomes"].get(LOOP, 0),
            "ok": document["outcomes"].get(OK, 0),
            "reason": one_line(document["reason"], _CELL),
        }
        for document in documents
    ]
    print_table(rows, _COLUMNS)


@jobs.command()
def show(
    pipeline: PipelineFile,
    job: o.Job,
    outcome: Annotated[str | None, typer.Option(help="Only letters with this outcome.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only letters behind this position.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many letters at most.")] = 100,
    index: o.IndexUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Show one job, and what became of its letters."""
    with open_index(load_pipeline(pipeline), index) as opened:
        document = job_document(opened.jobs.get(job), opened.jobs.outcomes(job))
        results = opened.jobs.results(job, outcome=outcome, after=after, limit=limit)
        history = opened.reader.history(HistoryFilter(note=job), limit=1000)
    if as_json:
        typer.echo(safe_json({**document, "results": results, "history": history}, indent=2))
        return
    typer.echo(summary(document))
    rows = [{name: one_line(str(cell), _CELL) if cell else None for name, cell in row.items()} for row in results]
    print_table(rows, ["position", "id", "outcome", "detail", "again"])
    for entry in history:
        typer.echo(f"  {moment(entry['at'])}  {one_line(entry['actor'], 40)}  {one_line(entry['action'], 80)}")


@jobs.command()
def pause(pipeline: PipelineFile, job: o.Job, index: o.IndexUrl = None, as_json: o.AsJson = False) -> None:
    """Send no more for now. What was sent is still followed."""
    with open_index(load_pipeline(pipeline), index) as opened:
        _say(opened.jobs.pause(job, actor=o.actor()), as_json)


@jobs.command()
def resume(pipeline: PipelineFile, job: o.Job, index: o.IndexUrl = None, as_json: o.AsJson = False) -> None:
    """Go on, also with a job that has stopped because too much failed: then whatever fails."""
    with open_index(load_pipeline(pipeline), index) as opened:
        _say(opened.jobs.resume(job, actor=o.actor()), as_json)


@jobs.command()
def cancel(
    pipeline: PipelineFile,
    job: o.Job,
    index: o.IndexUrl = None,
    yes: o.Yes = False,
    as_json: o.AsJson = False,
) -> None:
    """Give up what has not been sent yet; those letters stay open."""
    o.require_answer(yes, as_json)
    with open_index(load_pipeline(pipeline), index) as opened:
        found = opened.jobs.get(job)
        if not yes:
            typer.confirm(f"Give up {found.total - found.sent} of {found.total} dead letters?", abort=True)
        _say(opened.jobs.cancel(job, actor=o.actor()), as_json)


def _say(job: Job, as_json: bool) -> None:
    typer.echo(safe_json({"job": job.id, "state": job.state}) if as_json else f"job {job.id} is {job.state}")
