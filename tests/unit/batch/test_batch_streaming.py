"""A query whose JVM has gone."""

from __future__ import annotations

import threading
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from py4j.protocol import Py4JNetworkError

from batch.streaming import StreamingQueries
from tidegate.errors import EngineFailed


class Gone:
    """A query in a JVM that somebody kills."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def awaitTermination(self, timeout: float) -> bool:
        raise self.error

    @property
    def isActive(self) -> bool:
        raise ConnectionRefusedError(111, "Connection refused")


class Begun(StreamingQueries):
    """Queries of which one is at work already."""

    def _start(self, starts: object, checkpoint: object) -> Any:
        return self.session


@pytest.mark.parametrize(
    "error", [Py4JNetworkError("Answer from Java side is empty"), ConnectionRefusedError(111, "no")]
)
def test_a_jvm_that_has_gone_is_said(error: Exception, tmp_path: Path) -> None:
    """The run ends with an error that says so, not with one of a socket, and is told nothing else on the way."""
    batches = cast(Any, SimpleNamespace(error=None, take=None))
    names = (field.name for field in fields(StreamingQueries))
    given: dict[str, Any] = dict.fromkeys(names) | {
        "session": Gone(error), "scratch": tmp_path, "batches": batches, "stop": threading.Event(),
    }  # fmt: skip
    queries = Begun(**given)
    with pytest.raises(EngineFailed, match="Spark ended the query: its JVM has gone"):
        queries.follow({})
