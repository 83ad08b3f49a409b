"""Making a pipeline ready to run, to learn all that is wrong with its expressions, rules and handlers."""

from __future__ import annotations

import sys
from pathlib import Path

from tidegate.config.pipeline import Pipeline
from tidegate.errors import all_errors
from tidegate.stages.decode import Decoder
from tidegate.stages.handle import HandlerChain
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import Plan, compile_plan
from tidegate.stages.rules import CHECKS
from tidegate.stages.types import value_schema


def compiled(pipeline: Pipeline) -> Plan:
    """The plan of a pipeline whose stages can all be made.

    1. columns     the schema in Arrow's types
    2. parts       each column's form, each rule, expression and handler: an error in one does not hide those of the others
    3. stages      all of them together, as a worker makes them

    Handlers are looked for in the working directory too, where a worker finds them. Raises ConfigError or ConfigErrors.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    decoded = value_schema(pipeline)
    with all_errors() as part:
        with part():
            Decoder(pipeline)
        for index, rule in enumerate(pipeline.rules):
            with part():
                CHECKS[type(rule)](rule, decoded, f"rules[{index}]")
        with part():
            plan = compile_plan(pipeline)
        with part():
            HandlerChain(pipeline, decoded).close()
    StagePipeline(plan).close()
    return plan
