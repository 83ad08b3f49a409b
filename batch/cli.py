"""`tidegate batch`: the commands of the second engine."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch.archive.cli import archive
from batch.backfill.cli import backfill
from batch.catchup.cli import catchup
from batch.options import MAX_RECORDS, Options, Trigger
from batch.runs.cli import list_runs, status, stop
from tidegate.cli.output import AsJson, print_json, print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.config.secrets import secret_values
from tidegate.ledger import LEDGER_COLUMNS

if TYPE_CHECKING:
    from batch.report import Report

app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Run a pipeline file on Spark, and amend its results."
)


app.command()(catchup)


@app.callback()
def batch() -> None:
    """Run a pipeline file on Spark, and amend its results."""


@app.command()
def run(
    file: PipelineFile,
    trigger: Annotated[
        str,
        typer.Option(help='availableNow, once (one micro-batch) or "processingTime=10 seconds" (until it is stopped).'),
    ] = "availableNow",
    max_records: Annotated[
        int, typer.Option(help="Records of one micro-batch; `once` has no limit.", min=1)
    ] = MAX_RECORDS,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Where Spark keeps its own account while the run lasts. Default: a temporary directory."),
    ] = None,
    master: Annotated[
        str | None,
        typer.Option(
            help="Spark's master. Default: local[*]; under spark-submit, what it was told. SPARK_REMOTE=sc://… in its place "
            "is a Spark Connect server."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve /live, /ready and /metrics on this port (0: any) while it runs.", min=0)
    ] = None,
    ui: Annotated[bool, typer.Option("--ui", help="Serve Spark's own pages while it runs, and show where.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read what the topics have and the database has not, through the same stages as a worker, with the same results.

    Where to start is read from the database, wherever a worker or another run has stopped. Needs a PostgreSQL sink and,
    without SPARK_REMOTE, Java 17 or newer and, the first time, the network. Ctrl-C, or `tidegate batch stop` from elsewhere,
    ends the run after the micro-batch in hand, which is given up when it takes longer than `worker.drainTimeout`, or with a
    second Ctrl-C. Exit code 1: it failed.
    """
    from tidegate.telemetry.logs import configure_logging

    pipeline = load_pipeline(file)
    options = Options(Trigger.parse(trigger), max_records, checkpoint, master)
    telemetry = pipeline.telemetry
    configure_logging(telemetry.log_level, telemetry.log_format, secrets=secret_values(pipeline))
    from batch import connect
    from batch.ending import stopping
    from batch.needs import require_runnable
    from tidegate.local.progress import fetch

    connect.require_fit(options, ui=ui)
    sink = require_runnable(pipeline)
    if connect.server() is None:
        fetch("spark")
    from batch.observe import measured
    from batch.run import BatchRun
    from batch.runs.recording import Recording
    from batch.session import spark_session
    from batch.watch import watch
    from tidegate.store.runs import open_runs

    with stopping(pipeline.worker.drain_timeout / 1000) as stop, watch(pipeline.pipeline_id, sys.stderr) as watching:
        recording = Recording(pipeline, trigger, watching, open_runs(sink, pipeline.pipeline_id))
        with measured(pipeline, recording, metrics_port, recording.serves) as measuring:
            session = partial(spark_session, shows=recording.shows if ui else None)
            running = BatchRun(pipeline, options, measuring, open_session=session, stop=stop)
            recording.begin(stop)
            try:
                running.run()
            finally:
                recording.end(running.report)
                watching.end()
                _print(running.report, as_json=as_json)


app.command()(backfill)
app.command()(archive)
app.command("list")(list_runs)
app.command()(status)
app.command()(stop)


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(report.document())
        return
    found = report.document()
    rate = f", {found['read'] / report.seconds:,.0f} records/s".replace(",", " ", 1) if report.seconds else ""
    typer.echo(f"{report.pipeline}: {report.outcome}, {report.batches} micro-batches in {report.seconds:.1f} s{rate}")
    counts = ("read", "accepted", "failed", "deadLettered", "late")
    typer.echo("  ".join(f"{name} {found[name]}" for name in counts))
    for sink, number in report.published.items():
        typer.echo(f"results for sink {sink}: {number}")
    for name, windows in report.timed_out.items():
        typer.echo(f"windows of {name} that have left the database: {windows}")
    rows = [{"source": f"{row['topic']}-{row['partition']}", **row} for row in report.partitions()]
    if rows:
        columns = {"source": "partition", "upto": "upto"} | {name: name.replace("_", "-") for name in LEDGER_COLUMNS}
        print_table(rows, columns, title=f"{report.pipeline}: what this run added to the ledger")
