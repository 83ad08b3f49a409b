"""`tidegate batch backfill`: the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, print_json, print_table
from tidegate.config.loading import load_pipeline
from tidegate.config.secrets import secret_values
from tidegate.config.sinks import KafkaSink
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from batch.backfill.late_report import LateReport

_INCOMPLETE = 1


def backfill(
    file: Annotated[Path, typer.Argument(metavar="PIPELINE", help="The pipeline file, YAML or JSON.")],
    late: Annotated[bool, typer.Option("--late", help="Bring late records into the windows that miss them.")] = False,
    source: Annotated[
        str | None,
        typer.Option(help="kafka: read the source topics even where late records have a topic of their own."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring results in the database up to what the log says.

    --late amends the windows that miss late records: afterwards they are those of all records ever read, and the late table
    says that 0 are missing. A worker may go on meanwhile. Whatever stops it, run it again: each record is added once.
    Exit code 1 when some records could not be added; each is named with the reason.
    """
    from tidegate.telemetry.logs import configure_logging

    pipeline = load_pipeline(file)
    if not late:
        raise ConfigError("nothing to do", field="--late", expected="--late")
    if source not in (None, "kafka"):
        raise ConfigError("no such source", field="--source", value=source, expected="kafka")
    telemetry = pipeline.telemetry
    configure_logging(telemetry.log_level, telemetry.log_format, secrets=secret_values(pipeline))
    from batch.backfill.late import LateBackfill
    from batch.backfill.progress import bars

    with bars(sys.stderr) as watch:
        running = LateBackfill(pipeline, watch, from_source=source == "kafka")
        report = running.run()
    if any(isinstance(sink, KafkaSink) for sink in pipeline.sinks):
        report.notes.append("results on Kafka are as the worker wrote them: a backfill amends the database alone")
    _print(report, as_json=as_json)
    if not report.complete:
        raise typer.Exit(_INCOMPLETE)


def _print(report: LateReport, *, as_json: bool) -> None:
    found = report.document()
    if as_json:
        print_json(found)
        return
    typer.echo(
        f"{report.pipeline}: {found['windowsAmended']} windows amended, {found['recordsAdded']} late records added, "
        f"{found['recordsFiltered']} filtered, {found['recordsRefused']} refused"
    )
    typer.echo(f"missing in windows: {found['missingBefore']} before, {found['missingAfter']} now")
    rows = [{"name": f"{row['topic']}-{row['partition']}", **row} for row in report.rows()]
    columns = {
        "name": "partition",
        "source": "found in",
        "added": "added",
        "filtered": "filtered",
        "refused": "refused",
    }
    print_table(rows, columns, title=f"{report.pipeline}: late records")
    for tp, partition in sorted(report.partitions.items()):
        if partition.problem is not None:
            typer.secho(f"✗ {tp}: {partition.problem}", fg=typer.colors.RED, err=True)
    for one in report.refused:
        typer.secho(f"✗ {one['id']}: {one['errorType']}: {one['message']}", fg=typer.colors.RED, err=True)
    for note in report.notes:
        typer.echo(f"note: {note}")
