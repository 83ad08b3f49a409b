"""Queries of Spark's, without it: how one ends, and what is said of that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from py4j.protocol import Py4JNetworkError

from batch.ahead import Ahead
from batch.streaming import StreamingQueries
from tests.unit.worker.pieces import TP
from tidegate.errors import EngineFailed, StoreFenced

PATIENCE = 30.0


class Gone:
    """A query in a JVM that somebody kills."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def awaitTermination(self, timeout: float) -> bool:
        raise self.error

    @property
    def isActive(self) -> bool:
        raise ConnectionRefusedError(111, "Connection refused")


class Planned:
    """A query that has planned one micro-batch, and has then come to its end or finds nothing more to plan."""

    isActive = False

    def __init__(self, *, ended: bool) -> None:
        self.ended, self.until = ended, time.monotonic() + PATIENCE

    def awaitTermination(self, timeout: float) -> bool:
        assert time.monotonic() < self.until, "the run would not end"
        time.sleep(0.001)
        return self.ended


class Begun(StreamingQueries):
    """Queries of which one is at work already."""

    def _start(self, starts: object, ahead: Ahead) -> Any:
        if isinstance(self.session, Planned):
            ahead.give({TP: 10})
        return self.session


def queries(query: object, scratch: Path, take: Callable[..., None] | None = None) -> Begun:
    batches = cast(Any, SimpleNamespace(error=None, take=take, between=lambda: None))
    names = (field.name for field in fields(StreamingQueries))
    given: dict[str, Any] = dict.fromkeys(names) | {
        "session": query, "scratch": scratch, "batches": batches, "stop": threading.Event(),
    }  # fmt: skip
    return Begun(**given)


@pytest.mark.parametrize(
    "error", [Py4JNetworkError("Answer from Java side is empty"), ConnectionRefusedError(111, "no")]
)
def test_a_jvm_that_has_gone_is_said(error: Exception, tmp_path: Path) -> None:
    """The run ends with an error that says so, not with one of a socket, and is told nothing else on the way."""
    with pytest.raises(EngineFailed, match="Spark ended the query: its JVM has gone"):
        queries(Gone(error), tmp_path).follow({})


@pytest.mark.parametrize("ended", [True, False])
def test_what_ends_the_last_micro_batch_ends_the_run(tmp_path: Path, *, ended: bool) -> None:
    """Also when Spark has planned all there is, or finds no more to plan: nobody gives the next one, who would hear of it."""

    def fails(_: object) -> None:
        raise StoreFenced("another has it")

    with pytest.raises(StoreFenced):
        queries(Planned(ended=ended), tmp_path, fails).follow({})
