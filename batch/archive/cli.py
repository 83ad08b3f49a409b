"""`tidegate batch archive`: the command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tidegate.cli.output import AsJson, print_json, print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.config.secrets import secret_values


def archive(
    file: PipelineFile,
    to: Annotated[str, typer.Option(help="A directory, or s3://bucket/prefix.")],
    as_json: AsJson = False,
) -> None:
    """Copy the source topics to Parquet, up to their ends as they are now, going on where the last run ended.

    Every record once, as it was: key, value and headers as bytes, offset and timestamp. Files lie by day. A backfill reads
    them with --source, so that it can go back further than the topics' retention.
    """
    from batch.archive.write import ArchiveRun
    from batch.backfill.progress import bars
    from tidegate.telemetry.logs import configure_logging

    pipeline = load_pipeline(file)
    telemetry = pipeline.telemetry
    configure_logging(telemetry.log_level, telemetry.log_format, secrets=secret_values(pipeline))
    with bars(sys.stderr) as watch:
        report = ArchiveRun(pipeline, to, watch).run()
    document = report.document()
    if as_json:
        print_json(document)
        return
    typer.echo(f"{report.pipeline}: {document['records']} records in {document['files']} files to {report.place}")
    rows = [{"name": f"{row['topic']}-{row['partition']}", **row} for row in report.rows()]
    print_table(rows, {"name": "partition", "upto": "archived up to", "records": "records", "files": "files"})
    for tp, (first, last) in sorted(report.gaps.items()):
        typer.secho(
            f"✗ {tp}: offsets {first} to {last} were lost before they were archived", fg=typer.colors.YELLOW, err=True
        )
