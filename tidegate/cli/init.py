"""`tidegate init`: a commented pipeline file to start from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from tidegate.errors import ConfigError


def init(
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path("pipeline.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a commented pipeline file: orders from Kafka, checked, counted per minute, into PostgreSQL and Kafka."""
    if file.is_dir():
        raise ConfigError("this is a directory", file=str(file), expected="the file to write, such as pipeline.yaml")
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(example())
    except FileExistsError:
        raise ConfigError("this file is there already", file=str(file), hint="--force writes over it") from None
    except OSError as error:
        raise ConfigError(f"the file cannot be written: {error.strerror}", file=str(file)) from None
    typer.echo(
        f"wrote {file}\n\n  tidegate check {file}      check it and see its plan\n  tidegate worker {file}     run it"
    )


def example() -> str:
    """The text of the example."""
    return files("tidegate.cli").joinpath("example.yaml").read_text(encoding="utf-8")
