"""`tidegate worker PIPELINE`: the same as `TIDEGATE_PIPELINE=PIPELINE faust -A worker.app worker`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline


def worker(
    pipeline: PipelineFile,
    log_level: Annotated[str, typer.Option("--loglevel", "-l", help="Faust's log level.")] = "info",
) -> None:
    """Run the Faust worker of a pipeline until it is stopped."""
    load_pipeline(pipeline)  # a wrong file is said here, before Faust is imported
    os.environ["TIDEGATE_PIPELINE"] = str(pipeline)
    arguments = [sys.executable, "-m", "faust", "-A", "worker.app", "worker", "-l", log_level]
    os.execv(sys.executable, arguments)  # the same process id: signals reach the worker
