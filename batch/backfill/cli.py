"""`tidegate batch backfill`: the command."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.output import AsJson, print_json, print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.config.secrets import secret_values
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from batch.backfill.late_report import LateReport
    from batch.backfill.ranges import LogRange
    from tidegate.config.pipeline import Pipeline

_INCOMPLETE = 1


def backfill(
    file: PipelineFile,
    late: Annotated[bool, typer.Option("--late", help="Bring late records into the windows that miss them.")] = False,
    begin: Annotated[
        str | None,
        typer.Option("--from", help="Compute windows anew that start at or after this moment (ISO 8601, UTC)."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="… and before this one.")] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Put the windows that were computed anew in the place of the old.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            help="Where to read the log: kafka, or an archive (a directory or s3://bucket/prefix), and Kafka behind it. "
            "Default: the late topic for --late, else kafka."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring results in the database up to what the log says.

    --late amends the windows that miss late records: afterwards they are those of all records ever read, and the late table
    says that 0 are missing. A worker may go on meanwhile. Whatever stops it, run it again: each record is added once.
    Exit code 1 when some records could not be added; each is named with the reason.

    --from and --to compute windows anew under the pipeline file as it is now, beside the live tables, and show what differs.
    --promote, at once or by itself later, puts them in place in one transaction. Exit code 1 when it had to leave some.
    """
    from tidegate.telemetry.logs import configure_logging

    pipeline = load_pipeline(file)
    span = _span(late, begin, end, promote)
    telemetry = pipeline.telemetry
    configure_logging(telemetry.log_level, telemetry.log_format, secrets=secret_values(pipeline))
    log = _log(pipeline, source)
    complete = _late(pipeline, file, log, as_json) if late else _anew(pipeline, file, log, span, promote, as_json)
    if not complete:
        raise typer.Exit(_INCOMPLETE)


def _span(late: bool, begin: str | None, end: str | None, promote: bool) -> tuple[int, int] | None:
    """From and to in ms; None when none is given. Raises ConfigError for options that do not go together."""
    if late and (begin or end or promote):
        raise ConfigError(
            "goes alone", field="--late", hint="first --late, then --from and --to, or the other way round"
        )
    if late or (promote and not begin and not end):
        return None
    if begin is None or end is None:
        raise ConfigError("what is to be done?", field="--from", expected="--late, or --from and --to, or --promote")
    first, last = _moment("--from", begin), _moment("--to", end)
    if first >= last:
        raise ConfigError("ends before it begins", field="--to", value=end, expected=f"a moment after {begin}")
    return first, last


def _moment(option: str, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("no moment", field=option, value=text, expected="such as 2026-01-31T06:00:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _log(pipeline: Pipeline, source: str | None) -> LogRange | None:
    """Raises ConfigError for a source that is none."""
    from batch.archive.layout import Archive
    from batch.archive.read import ArchivedLog
    from batch.backfill.ranges import KafkaRange

    if source is None:
        return None
    kafka = KafkaRange.of(pipeline, "backfill")
    if source == "kafka":
        return kafka
    archive = Archive(source)
    archive.check("--source")
    return ArchivedLog(archive, kafka)


def _late(pipeline: Pipeline, file: Path, log: LogRange | None, as_json: bool) -> bool:
    from batch.backfill.followers import who_follows
    from batch.backfill.late import LateBackfill
    from batch.backfill.progress import bars

    with bars(sys.stderr) as watch:
        report = LateBackfill(pipeline, watch, source=log).run()
    report.notes += who_follows(pipeline, file, "amended")
    _print(report, as_json=as_json)
    return report.complete


def _anew(
    pipeline: Pipeline, file: Path, log: LogRange | None, span: tuple[int, int] | None, promote: bool, as_json: bool
) -> bool:
    from batch.backfill.diff_report import DiffReport
    from batch.backfill.followers import who_follows
    from batch.backfill.progress import bars
    from batch.backfill.recompute import RecomputeBackfill
    from tidegate.store.shadow import Range

    with bars(sys.stderr) as watch:
        running = RecomputeBackfill(pipeline, watch, log=log)
        found = running.compute(Range(*span)) if span is not None else None
        if promote or found is None:
            found = running.promote()
    report = DiffReport(pipeline.pipeline_id, *found)
    if report.promoted:
        report.notes.extend(who_follows(pipeline, file, "promoted"))
    if as_json:
        print_json(report.document())
    else:
        report.show()
    return report.complete or not promote


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
