"""Making a pipeline ready to run, to learn all that is wrong with its expressions, rules and handlers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError, ConfigErrors
from tidegate.stages.handle import HandlerChain
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import Plan, compile_plan
from tidegate.stages.rules import CHECKS
from tidegate.stages.types import value_schema


def compiled(pipeline: Pipeline) -> Plan:
    """The plan of a pipeline whose stages can all be made.

    1. columns     the schema in Arrow's types
    2. parts       each rule, the expressions, the handlers: an error in one does not hide those of the others
    3. stages      all of them together, as a worker makes them

    Handlers are looked for in the working directory too, where a worker finds them. Raises ConfigError or ConfigErrors.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    value_schema(pipeline)
    errors = [error for part in _parts(pipeline) if (error := _error_of(part)) is not None]
    if errors:
        raise errors[0] if len(errors) == 1 else ConfigErrors(errors)
    plan = compile_plan(pipeline)
    StagePipeline(plan).close()
    return plan


def _parts(pipeline: Pipeline) -> Iterator[Callable[[], object]]:
    decoded = value_schema(pipeline)
    for index, rule in enumerate(pipeline.rules):
        yield lambda rule=rule, index=index: CHECKS[type(rule)](rule, decoded, f"rules[{index}]")  # type: ignore[misc]  # a lambda's default argument has no type
    yield lambda: compile_plan(pipeline)
    yield lambda: HandlerChain(pipeline, decoded).close()


def _error_of(part: Callable[[], object]) -> ConfigError | None:
    try:
        part()
    except ConfigError as error:
        return error
    return None
