"""Tasks over the cores of this machine, their results in the order in which they were given."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from batch.wire import raised
from tidegate.errors import TidegateError

Input = TypeVar("Input")
Output = TypeVar("Output")


class Pool(Protocol):
    """Somewhere tasks run."""

    def map(self, task: Callable[[Input], Output], inputs: Iterable[Input]) -> Iterator[Output]:
        """Results in order. Raises the first error, as it was."""


class Here:
    """In this process, one after the other: for what is done before others have started."""

    def map(self, task: Callable[[Input], Output], inputs: Iterable[Input]) -> Iterator[Output]:
        return map(task, inputs)


class Processes(AbstractContextManager["Processes"]):
    """A process per core. Few results wait at a time, so that memory is bounded."""

    def __init__(self, count: int | None = None) -> None:
        self._count = count or os.cpu_count() or 1
        self._executor = ProcessPoolExecutor(self._count, multiprocessing.get_context("spawn"))

    def map(self, task: Callable[[Input], Output], inputs: Iterable[Input]) -> Iterator[Output]:
        waiting: deque[Future[Output | _Failed]] = deque()
        given = iter(inputs)
        while True:
            while len(waiting) < 2 * self._count:
                try:
                    waiting.append(self._executor.submit(_Caught(task), next(given)))
                except StopIteration:
                    break
            if not waiting:
                return
            result = waiting.popleft().result()
            if isinstance(result, _Failed):
                raise raised(result.kind, result.text, result.attributes)
            yield result

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Failed:
    """An error of ours: many cannot be made again from their text alone."""

    kind: type[TidegateError]
    text: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Caught(Generic[Input, Output]):
    task: Callable[[Input], Output]

    def __call__(self, given: Input) -> Output | _Failed:
        try:
            return self.task(given)
        except TidegateError as error:
            return _Failed(type(error), str(error), dict(error.__dict__))
