"""`faust -A worker.app worker`: the worker of the pipeline that TIDEGATE_PIPELINE names."""

from __future__ import annotations

from transport.environment import app_from_environment
from worker.build import create_app

app = app_from_environment(create_app, module="worker.app", command="worker")
