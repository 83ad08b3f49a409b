"""Spark's errors as ours: one line of what Spark says on a page for each of its layers."""

from __future__ import annotations

import re
from typing import Final

import structlog
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

from tidegate.errors import EngineFailed

log = structlog.get_logger(__name__)

SPARK_ERRORS: Final = (PySparkException, Py4JError, ConnectionError)
"""What a call into Spark can raise; some come through untranslated from py4j. ConnectionError: its JVM has gone."""

_PYTHON = re.compile(r"^(?!java|scala|org\.)[\w.]*(Error|Exception): .+")
_CAUSE = "Caused by: "
_MOST = 1000  # characters


def answer(error: Exception) -> str | None:
    """What gRPC has to say of a call to a Spark Connect server that came to nothing, without the lines around it."""
    details = getattr(error.__context__, "details", None)
    return str(details()) if callable(details) and type(error).__name__ == "SparkConnectGrpcException" else None


def engine_failed(what: str, error: Exception) -> EngineFailed:
    """`what` Spark ended, and why: the last line of an executor's traceback, else the first cause, else the first line."""
    log.debug("spark.failed", text=str(error))
    if said := answer(error):
        return EngineFailed(
            f"Spark ended {what}: its server does not answer any more, or not as it should: {said[:_MOST]}"
        )
    if isinstance(error, Py4JNetworkError | ConnectionError):
        return EngineFailed(f"Spark ended {what}: its JVM has gone (was it killed, or is memory short?)")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    python = [line for line in lines if _PYTHON.match(line)]
    causes = [line.removeprefix(_CAUSE) for line in lines if line.startswith(_CAUSE)]
    reason = python[-1] if python else (causes or lines)[0]
    return EngineFailed(f"Spark ended {what}: {reason[:_MOST]}")
