"""`tidegate batch list`, `status` and `stop`: what runs there are, how one goes, and its end, from any machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tidegate.cli.output import AsJson, print_json, print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.store.runs import Run, Runs

_LOOK = 0.5  # seconds between looks at a run that was asked to stop

RunId = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Which run, as `tidegate batch list` names it.")]


def list_runs(file: PipelineFile, as_json: AsJson = False) -> None:
    """Show the runs and catch-ups of a pipeline that are alive, then those of the last seven days, newest first (at most 20).

    A run that has said nothing for ten seconds is `gone`: it was killed, or cannot reach the database.
    """
    from batch.runs.view import LISTED, document, listed

    with _opened(file) as runs:
        found = runs.recent()
    if as_json:
        print_json([document(run) for run in found])
    elif found:
        print_table([listed(run) for run in found], LISTED, title=f"{found[0].said.query}: runs")
    else:
        typer.echo("no run in the last seven days")


def status(file: PipelineFile, run: RunId = None, as_json: AsJson = False) -> None:
    """Show how a run goes: the one named, else the one that is alive, else the last one. Exit code 1: there is none."""
    from batch.runs.view import LISTED, PLACES, document, facts, listed, places

    with _opened(file) as runs:
        found = runs.recent()
    if not found:
        _fail("no run in the last seven days: `tidegate batch run` starts one")
    shown = _named(found, run) if run is not None else found[0]
    if as_json:
        print_json(document(shown))
        return
    print_table([listed(shown)], LISTED, title=f"{shown.said.query}: run {shown.said.run}")
    for line in facts(shown):
        typer.echo(line)
    if shown.said.positions:
        print_table(places(shown), PLACES)


def stop(
    file: PipelineFile,
    run: RunId = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the run has ended.")] = True,
) -> None:
    """Ask a run to end after the micro-batch in hand, wherever it runs. Without RUN: the one that is alive.

    Exit code 0: it has ended (`--no-wait`: it was asked to). 1: there is none, it is gone, or it failed.
    """
    with _opened(file) as runs:
        chosen = _to_stop(runs.recent(), run)
        runs.ask_to_stop(chosen.said.run)
        if not wait:
            typer.echo(f"run {chosen.said.run} was asked to stop")
            return
        ended = _ended(runs, chosen)
    if ended.state == "gone":
        _fail(f"run {ended.said.run} ({_where(ended)}) is gone: it has said nothing for {ended.age:.0f} s")
    if ended.state == "failed":
        _fail(f"run {ended.said.run} failed: {ended.said.error}")
    typer.echo(
        f"run {ended.said.run} {ended.state}: {ended.said.batches} micro-batches, {ended.said.read} records read"
    )


@contextmanager
def _opened(file: Path) -> Iterator[Runs]:
    from batch.catchup.needs import for_spark
    from batch.needs import require_runnable
    from tidegate.store.runs import open_runs

    pipeline = load_pipeline(file)
    runs = open_runs(
        require_runnable(for_spark(pipeline)), pipeline.pipeline_id
    )  # catch-ups may have a Kafka sink beside it
    try:
        yield runs
    finally:
        runs.close()


def _named(found: Sequence[Run], name: str) -> Run:
    for one in found:
        if one.said.run == name:
            return one
    names = ", ".join(one.said.run for one in found)
    raise ConfigError("no such run", field="RUN", value=name, expected=names or "none: no run in the last seven days")


def _to_stop(found: Sequence[Run], name: str | None) -> Run:
    """Raises ConfigError when it is not clear which; ends the command when there is nothing to stop."""
    if name is not None:
        chosen = _named(found, name)
        if chosen.state == "gone":
            _fail(f"run {name} ({_where(chosen)}) is gone: it has said nothing for {chosen.age:.0f} s; nothing to stop")
        if not chosen.alive:
            _fail(f"run {name} has ended already: {chosen.state}")
        return chosen
    alive = [one for one in found if one.alive]
    if not alive:
        _fail(f"no run to stop: {found[0].said.run} is {found[0].state}" if found else "no run to stop")
    if len(alive) > 1:
        raise ConfigError(
            "several runs are alive", field="RUN", expected="one of " + ", ".join(one.said.run for one in alive)
        )
    return alive[0]


def _ended(runs: Runs, chosen: Run) -> Run:
    """Wait until it is not alive any more."""
    from rich.console import Console

    console, name = Console(stderr=True), chosen.said.run
    try:
        with console.status(f"run {name} ends after the micro-batch in hand"):
            while chosen.alive:
                time.sleep(_LOOK)
                chosen = _named(runs.recent(), name)
    except KeyboardInterrupt:
        console.print(f"run {name} was asked to stop, and will without this command", highlight=False)
        raise
    return chosen


def _where(run: Run) -> str:
    return f"process {run.said.pid} on {run.said.host}"


def _fail(text: str) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(1)
