"""The argument of every command that needs a pipeline file, and its name on what is found wrong with it later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tidegate.errors import ConfigError, TidegateError

_KEY = "tidegate.pipeline_file"  # in the context's `meta`, which a command shares with those it stands in


def _remember(ctx: typer.Context, file: Path) -> Path:
    ctx.meta[_KEY] = file
    return file


PipelineFile = Annotated[
    Path, typer.Argument(metavar="PIPELINE", help="The pipeline file, YAML or JSON.", callback=_remember)
]


def in_its_file(error: TidegateError, ctx: Any) -> TidegateError:
    """An error about the pipeline file that the command was given, with that file and the line; any other as it is."""
    file = ctx.meta.get(_KEY)
    if file is None or not isinstance(error, ConfigError):
        return error
    from tidegate.config.loading import placed  # pydantic: not for `--help`

    return placed(error, file)
