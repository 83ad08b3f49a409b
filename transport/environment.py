"""The app of the pipeline file that the environment names, as `faust -A` wants it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tidegate.config.loading import load_pipeline, placed
from tidegate.config.pipeline import Pipeline
from tidegate.config.secrets import secret_values
from tidegate.errors import ConfigError
from tidegate.telemetry.logs import configure_logging
from transport.app import BatchApp

A = TypeVar("A", bound=BatchApp)
_VARIABLE = "TIDEGATE_PIPELINE"


def app_from_environment(
    create: Callable[[Pipeline], A],
    *,
    module: str,
    command: str,
    secrets: Callable[[Pipeline], frozenset[str]] = secret_values,
) -> A:
    """What `create` makes; a configuration error ends the process with its text and exit code 2.

    `module`: whose app it is; `command`: of tidegate, for the same. `secrets`: what no line of the log may have.
    """
    path = os.environ.get(_VARIABLE)
    try:
        if not path:
            raise ConfigError(
                f"{_VARIABLE} is not set",
                expected="the path of a pipeline file",
                hint=f"{_VARIABLE}=pipeline.yaml faust -A {module} worker, or: tidegate {command} pipeline.yaml",
            )
        pipeline = load_pipeline(Path(path))
        telemetry = pipeline.telemetry
        configure_logging(telemetry.log_level, telemetry.log_format, secrets=secrets(pipeline))
        app = create(pipeline)
        app.tide.lifecycle.file = Path(path)
        return app
    except ConfigError as error:
        sys.stderr.write(f"{placed(error, Path(path)) if path else error}\n")
        raise SystemExit(2) from None
