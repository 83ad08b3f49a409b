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
        "deadLetters": {"index": "postgresql://h/db?user=u&password=third%20secret"},
    }
)


def test_every_secret_of_the_tree_is_found() -> None:
    """Wherever it stands; of a URL also the password alone, as it is written and as it is meant."""
    urls = {"postgresql://u:p%40ss-word@h/db", "postgresql://h/db?user=u&password=third%20secret"}
    assert secret_values(PIPELINE) == {"first-secret", *urls, "p%40ss-word", "p@ss-word", "third secret"}


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
