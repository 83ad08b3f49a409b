"""A replay job, followed from the shell: a progress bar for people, one document for programs, an exit code for scripts."""

from __future__ import annotations

import time
from typing import Any

import typer

from dlq.document import safe_json
from dlq.export import job_document
from dlq.replay.jobs import DONE, PAUSED, STOPPED, Job
from dlq.replay.names import OK, SENT
from dlq.service import DeadLetterIndex
from tidegate.config.secrets import secret_values
from tidegate.telemetry.logs import configure_logging

_LOOK = 0.25  # seconds
_UNCLAIMED = 5.0  # seconds before somebody is told that no agent has taken the job


def carry_out(opened: DeadLetterIndex, job: Job, *, here: bool, wait: bool, as_json: bool) -> None:
    """Follow the job (`here`: and work on it in this process) until it ends or waits for a person. Exits with 1 when not
    everything was accepted."""
    if not as_json:
        typer.echo(f"job {job.id}: {job.total} dead letters")
    agent = None
    if here:
        telemetry = opened.pipeline.telemetry
        configure_logging("warning", telemetry.log_format, secrets=secret_values(opened.pipeline))
        from dlq.replay.agent import ReplayAgent  # brings the stages with it

        agent = ReplayAgent(opened.pipeline, opened.database, only=job)
    try:
        if agent is not None:
            agent.start()
        if wait or here:
            job = _follow(opened, job, here=here, quiet=as_json)
    except KeyboardInterrupt:
        typer.echo(f"\nthe job goes on when an agent takes it: tidegate dlq jobs show … {job.id}", err=True)
        raise
    finally:
        if agent is not None:
            agent.stop()
    document = job_document(job, opened.jobs.outcomes(job.id))
    typer.echo(safe_json(document, indent=2) if as_json else summary(document))
    accepted = document["outcomes"].get(OK, 0) + document["outcomes"].get(SENT, 0)
    if (wait or here) and (job.state != DONE or accepted < job.total):
        raise typer.Exit(1)


def summary(document: dict[str, Any]) -> str:
    """A job in a line or two."""
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in sorted(document["outcomes"].items()))
    line = f"job {document['job']} is {document['state']}: {outcomes or 'nothing is known yet'}"
    rest = document["letters"] - sum(document["outcomes"].values())
    line += f"; {rest} without an outcome" if rest else ""
    return f"{line}\n{document['reason']}" if document["reason"] else line


def _follow(opened: DeadLetterIndex, job: Job, *, here: bool, quiet: bool) -> Job:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[outcomes]}"),
    )
    began, told = time.monotonic(), here
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("replay", total=job.total, outcomes="")
        while True:
            job = opened.jobs.get(job.id)
            outcomes = opened.jobs.outcomes(job.id)
            shown = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
            waits = f"waiting for the pipeline{': ' + shown if shown else ''}" if job.chunks else shown
            progress.update(bar, completed=job.sent, outcomes=waits)
            if job.finished or (job.state in (PAUSED, STOPPED) and not job.chunks):
                return job
            if not told and job.epoch == 0 and time.monotonic() - began > _UNCLAIMED:
                told = True
                hint = "no agent has taken the job yet: start `tidegate dlq agent`, or use --here"
                progress.console.print(hint, style="yellow")
            time.sleep(_LOOK)
