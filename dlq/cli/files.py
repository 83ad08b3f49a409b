"""`tidegate dlq import PIPELINE FROM`: files of dead letters into the index."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dlq.cli import options as o
from dlq.document import one_line, safe_json
from dlq.index.database import IndexDatabase, index_location
from dlq.index.masking import Masker
from dlq.index.writer import IndexWriter
from dlq.s3.archive import File, import_files, place_of
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.errors import ConfigError


def import_(
    pipeline: PipelineFile,
    location: Annotated[
        str, typer.Argument(metavar="FROM", help="s3://bucket/prefix, or a folder (or a file) on this machine.")
    ],
    index: o.IndexUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Bring dead letters from S3 into the index, masked as the pipeline file says. What is there already changes nothing.

    Their raw records are read from the files when their topic does not have them any more.
    """
    loaded = load_pipeline(pipeline)
    place = place_of(location, loaded.error_handling.dead_letter_queue.config)
    database = IndexDatabase(index_location(loaded, index), loaded.dead_letters)
    columns = (TextColumn("{task.fields[name]}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        database.prepare()
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as bar:
            total = sum(file.size for file in place.files())
            task = bar.add_task("", total=total, name="dead letters")

            def done(file: File, letters: int) -> None:
                bar.update(task, advance=file.size, name=one_line(file.url.rpartition("/")[2], 60))

            found = import_files(place, IndexWriter(database), Masker(loaded.dead_letters.masking), done)
    finally:
        database.close()
    if not found.files:
        raise ConfigError(
            "there is no file of dead letters",
            field="FROM",
            value=location,
            expected="names that end in .parquet or .jsonl",
        )
    if as_json:
        typer.echo(safe_json({"files": found.files, "letters": found.letters, "new": found.new}))
    else:
        typer.echo(f"{found.letters} dead letters in {found.files} files, {found.new} new in {database.name}")
