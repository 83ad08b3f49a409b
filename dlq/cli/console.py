"""`tidegate dlq console PIPELINE`: the console in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from dlq.cli import options as o
from dlq.service import connect_index
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.config.secrets import secret_values
from tidegate.telemetry.logs import configure_logging


def console(
    pipeline: PipelineFile,
    host: Annotated[str | None, typer.Option(help="Listen there. Default: the pipeline file's, or 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free port.")] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    index: o.IndexUrl = None,
) -> None:
    """Look at dead letters in a browser, and work on them there. Also a JSON API, under /api."""
    from dlq.console.serve import at, serve  # brings the web server with it

    loaded = load_pipeline(pipeline)
    configure_logging("warning", loaded.telemetry.log_format, secrets=secret_values(loaded))

    def started(url: str) -> None:
        typer.echo(f"the console of {loaded.pipeline_id} answers on {url}")
        if open_browser:
            typer.launch(url)

    with connect_index(loaded, index) as opened:
        serve(at(opened, host, port), o.actor(), started=started)
