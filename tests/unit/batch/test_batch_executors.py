"""How many tasks run at a time behind Spark Connect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa

from batch import wire
from batch.executors import Executors


class Server:
    """A session whose driver is elsewhere, on three cores."""

    def __init__(self) -> None:
        self.tasks: list[int | None] = []

    def range(self, start: int, end: int, step: int, tasks: int | None) -> Server:
        self.tasks.append(tasks)
        return self

    def mapInArrow(self, function: Any, schema: str) -> Server:
        return self

    def toArrow(self) -> pa.Table:
        return pa.Table.from_batches([wire.ready()] * (self.tasks[-1] or 3))


def begin(numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield wire.ready()


def test_a_server_is_asked_once_how_many_tasks_it_runs() -> None:
    """By the warm-up, whose tasks it counts; it has no context that could be asked."""
    executors = Executors(cast(Any, server := Server()), begin)
    executors.warm_up()
    assert [executors.at_once(), executors.at_once()] == [3, 3]
    assert server.tasks == [None]
    assert executors.run(begin, 2).num_rows == 2
    assert server.tasks == [None, 2]
