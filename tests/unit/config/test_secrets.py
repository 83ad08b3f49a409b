"""The secrets of a pipeline, for masking them in logs."""

from __future__ import annotations

import io
import logging
import sys

import structlog

from tidegate.config.pipeline import Pipeline
from tidegate.config.secrets import secret_values
from tidegate.telemetry.logs import configure_logging

PIPELINE = Pipeline.model_validate(
    {
        "pipelineId": "a",
        "kafka": {"sasl": {"username": "u", "password": "first-secret"}, "tls": {}},
        "sinks": [{"type": "postgres", "url": "postgresql://u:p%40ss-word@h/db"}],
    }
)


def test_every_secret_of_the_tree_is_found() -> None:
    """Wherever it stands; of a URL also the password alone, as it is written and as it is meant."""
    assert secret_values(PIPELINE) == {"first-secret", "postgresql://u:p%40ss-word@h/db", "p%40ss-word", "p@ss-word"}


def test_none_of_them_reaches_the_log() -> None:
    """Not even within another library's message."""
    stream = io.StringIO()
    try:
        configure_logging("info", "json", secrets=secret_values(PIPELINE), stream=stream)
        logging.getLogger("driver").warning("cannot log in with %s or %s", "first-secret", "p@ss-word")
        structlog.get_logger("t").info("x", said="it was first-secret")
    finally:
        configure_logging(stream=sys.stderr)
        logging.getLogger().handlers.clear()
    assert "cannot log in with *** or ***" in stream.getvalue()
    assert "secret" not in stream.getvalue()
