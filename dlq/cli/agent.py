"""`tidegate dlq agent PIPELINE`: the same as `TIDEGATE_PIPELINE=PIPELINE faust -A dlq.app worker`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from dlq.cli.options import IndexUrl
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline


def agent(
    pipeline: PipelineFile,
    index: IndexUrl = None,
    log_level: Annotated[str, typer.Option("--loglevel", "-l", help="Faust's log level.")] = "info",
) -> None:
    """Keep the index of dead letters up to date, carry out replays and delayed retries, until it is stopped."""
    load_pipeline(pipeline)  # a wrong file is said here, before Faust is imported
    os.environ["TIDEGATE_PIPELINE"] = str(pipeline)
    if index is not None:
        os.environ["TIDEGATE_DLQ_INDEX"] = index
    arguments = [sys.executable, "-m", "faust", "-A", "dlq.app", "worker", "-l", log_level]
    os.execv(sys.executable, arguments)  # the same process id: signals reach the agent
