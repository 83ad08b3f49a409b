"""`tidegate batch catchup`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch.options import MAX_RECORDS, Options
from tidegate.cli.output import AsJson, print_json, print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.config.secrets import secret_values
from tidegate.ledger import LEDGER_COLUMNS

if TYPE_CHECKING:
    from batch.catchup.run import CatchupReport
    from batch.ending import Stop
    from tidegate.config.pipeline import Pipeline

MAX_LAG = 10_000
"""Offsets that are left for the workers, unless told otherwise: they have them done in the time that one more round takes."""


def catchup(
    file: PipelineFile,
    max_lag: Annotated[
        int, typer.Option(help="Hand back when at most so many offsets are left, over all partitions.", min=0)
    ] = MAX_LAG,
    max_records: Annotated[int, typer.Option(help="Records of one micro-batch.", min=1)] = MAX_RECORDS,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Where Spark keeps its own account meanwhile. Default: a temporary directory.")
    ] = None,
    master: Annotated[
        str | None,
        typer.Option(
            help="Spark's master. Default: local[*]; under spark-submit, what it was told. SPARK_REMOTE=sc://… in its place "
            "is a Spark Connect server."
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and suggest or do it whenever the file's `fallback` says so.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take over the backlog of a pipeline whose workers are down or behind, and hand it back.

    Workers that are alive wait meanwhile ("held by catchup…" on /ready) and go on behind what was done; those that are
    started later do too. Ctrl-C, or `tidegate batch stop`, hands back after the micro-batch in hand, which is given up when
    it takes longer than `worker.drainTimeout`, or with a second Ctrl-C; a kill does so when `fallback.hold` is over. Needs a
    PostgreSQL sink and, without SPARK_REMOTE, Java 17 or newer and, the first time, the network. Exit code 1: it failed, or
    another catch-up is at work.
    """
    from tidegate.telemetry.logs import configure_logging

    pipeline = load_pipeline(file)
    telemetry = pipeline.telemetry
    configure_logging(telemetry.log_level, telemetry.log_format, secrets=secret_values(pipeline))
    from batch import connect
    from batch.catchup.needs import for_spark
    from batch.ending import stopping
    from tidegate.local.progress import fetch

    options = Options(max_records=max_records, checkpoint=checkpoint, master=master)
    connect.require_fit(options)
    for_spark(pipeline)

    def take_over() -> None:
        if connect.server() is None:
            fetch("spark")
        _catch_up(pipeline, options, max_lag, stop, as_json=as_json)

    with stopping(pipeline.worker.drain_timeout / 1000) as stop:
        if watch:
            _watch(pipeline, take_over, f"tidegate batch catchup {file}", stop)
        else:
            take_over()


def _catch_up(pipeline: Pipeline, options: Options, max_lag: int, stop: Stop, *, as_json: bool) -> None:
    from batch.catchup.needs import for_spark
    from batch.catchup.recording import CatchupRecording
    from batch.catchup.run import Catchup
    from batch.catchup.view import view
    from batch.needs import require_runnable
    from tidegate.store.runs import open_runs

    with view(pipeline.pipeline_id, sys.stderr) as shown:
        runs = open_runs(require_runnable(for_spark(pipeline)), pipeline.pipeline_id)
        recording = CatchupRecording(pipeline, shown, runs)
        running = Catchup(pipeline, options, max_lag, recording, stop=stop)
        recording.begin(stop)
        try:
            running.run()
        finally:
            recording.end(running.report.total)
            shown.end()
            _print(running.report, as_json=as_json)


def _watch(pipeline: Pipeline, take_over: Callable[[], None], command: str, stop: Stop) -> None:
    """Spark is not there until it is needed."""
    from batch.catchup.look import opened
    from batch.catchup.watch import Watcher, require_mode

    require_mode(pipeline.fallback)
    with opened(pipeline) as lookout:
        Watcher(pipeline.fallback, lookout.look, take_over, command).run(stop)


def _print(report: CatchupReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.document())
        return
    total = report.total
    left = "an unknown number of" if report.lag is None else f"{report.lag}"
    typer.echo(
        f"{report.pipeline}: {total.outcome}, {total.total.read} records in {report.held:.1f} s for which workers waited "
        f"({report.seconds:.1f} s in all); {left} offsets are left for them"
    )
    rows = [{"source": f"{row['topic']}-{row['partition']}", **row} for row in total.partitions()]
    if rows:
        columns = {"source": "partition", "upto": "upto"} | {name: name.replace("_", "-") for name in LEDGER_COLUMNS}
        print_table(rows, columns, title=f"{report.pipeline}: what this catch-up added to the ledger")
