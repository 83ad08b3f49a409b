"""`tidegate check`: everything that can be wrong with a pipeline file before the first record, and its plan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidegate.cli.output import AsJson, print_json
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.kafka import aiokafka_options
from tidegate.config.loading import load_pipeline, placed
from tidegate.diagram import draw, outcomes, steps
from tidegate.errors import ConfigError, ConfigErrors

if TYPE_CHECKING:
    from tidegate.cli.live import Answer
    from tidegate.config.pipeline import Pipeline
    from tidegate.stages.plan import Plan

_EXIT_WRONG, _EXIT_AWAY = 2, 1


def check(
    file: PipelineFile,
    live: Annotated[bool, typer.Option("--live", help="Also ask Kafka and PostgreSQL.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer of --live.", min=0.1)] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Check a pipeline file and print its plan.

    Exit code 2: the file is wrong. 1: with --live, something it needs is not there.
    """
    try:
        pipeline, plan = _checked(file)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"valid": False, "problems": [_problem(each) for each in _each(error)]})
        raise typer.Exit(_EXIT_WRONG) from None
    answers = _ask(pipeline, plan, timeout) if live else []
    if as_json:
        print_json(_document(pipeline, plan, answers, live=live))
    else:
        _print(pipeline, plan, answers, live=live)
    if not all(answer.good for answer in answers):
        raise typer.Exit(_EXIT_AWAY)


def _checked(file: Path) -> tuple[Pipeline, Plan | None]:
    """Load the file, read its certificates, make its stages; no plan while it names no source or schema.

    Raises ConfigError that names the file and the line.
    """
    pipeline = load_pipeline(file)
    try:
        aiokafka_options(pipeline.kafka)
        return pipeline, None if pipeline.missing_to_run else _compiled(pipeline)
    except ConfigError as error:
        raise placed(error, file) from None


def _compiled(pipeline: Pipeline) -> Plan:
    from tidegate.cli.compile import compiled  # duckdb and pyarrow: not for a file that is wrong anyway

    return compiled(pipeline)


def _ask(pipeline: Pipeline, plan: Plan | None, timeout: float) -> list[Answer]:
    from tidegate.cli.live import ask

    return ask(pipeline, plan, timeout)


def _print(pipeline: Pipeline, plan: Plan | None, answers: list[Answer], *, live: bool) -> None:
    typer.echo(draw(pipeline, plan))
    if pipeline.missing_to_run:
        typer.echo(f"\nvalid, but not complete: to run it needs {_and(pipeline.missing_to_run)}")
    else:
        typer.echo("\nvalid")
    for answer in answers:
        typer.secho(
            f"{'✓' if answer.good else '✗'} {answer.what}: {answer.text}", fg=None if answer.good else typer.colors.RED
        )
    if live and answers and not all(answer.good for answer in answers):
        typer.secho("not ready to run", fg=typer.colors.RED, err=True)


def _document(pipeline: Pipeline, plan: Plan | None, answers: list[Answer], *, live: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "valid": True,
        "pipelineId": pipeline.pipeline_id,
        "missing": list(pipeline.missing_to_run),
        "stages": [{"stage": step.stage.value, "does": list(step.does)} for step in steps(pipeline, plan)],
        "aggregations": [
            {"name": each.name, "sizeMs": each.size, "hopMs": each.hop, "emit": each.emit, "spreads": each.spreads}
            for each in (plan.aggregations if plan else ())
        ],
        "outcomes": outcomes(pipeline),
    }
    return {**document, "live": [asdict(answer) for answer in answers]} if live else document


def _each(error: ConfigError) -> tuple[ConfigError, ...]:
    return error.errors if isinstance(error, ConfigErrors) else (error,)


def _problem(error: ConfigError) -> dict[str, Any]:
    return {
        "file": error.file,
        "line": error.line,
        "field": error.field,
        "problem": error.problem,
        "found": None if error.value is None else repr(error.value),
        "expected": error.expected,
        "hint": error.hint,
    }


def _and(words: tuple[str, ...]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
