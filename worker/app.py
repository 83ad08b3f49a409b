"""`faust -A worker.app worker`: the worker of the pipeline that TIDEGATE_PIPELINE names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tidegate.config.loading import load_pipeline, placed
from tidegate.config.secrets import secret_values
from tidegate.errors import ConfigError
from tidegate.telemetry.logs import configure_logging
from worker.build import WorkerApp, create_app


def from_environment() -> WorkerApp:
    """The app for TIDEGATE_PIPELINE; a configuration error ends the process with its text and exit code 2."""
    path = os.environ.get("TIDEGATE_PIPELINE")
    try:
        if not path:
            raise ConfigError(
                "TIDEGATE_PIPELINE is not set",
                expected="the path of a pipeline file",
                hint="TIDEGATE_PIPELINE=pipeline.yaml faust -A worker.app worker, or: tidegate worker pipeline.yaml",
            )
        pipeline = load_pipeline(Path(path))
        telemetry = pipeline.telemetry
        configure_logging(telemetry.log_level, telemetry.log_format, secrets=secret_values(pipeline))
        app = create_app(pipeline)
        app.tide.lifecycle.file = Path(path)
        return app
    except ConfigError as error:
        sys.stderr.write(f"{placed(error, Path(path)) if path else error}\n")
        raise SystemExit(2) from None


app = from_environment()
