"""Calls in threads that outlive whoever waited for them: a thread cannot be stopped, so what it uses stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from tidegate.clock import Deadline

T = TypeVar("T")


class Calls:
    """The calls of one owner of something (a database, a connection) in the threads of a pool.

    `await calls(work)`: the result of `work()`, in another pool if one is named. A cancellation takes back a call that has
    not begun; one that has goes on, and `finished` waits for it: until then nothing that it uses may be closed.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._running: set[Future[Any]] = set()

    async def __call__(self, work: Callable[[], T], executor: Executor | None = None) -> T:
        call = (executor or self._executor).submit(work)
        self._running.add(call)
        call.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(call)

    @property
    def running(self) -> bool:
        return any(not call.done() for call in list(self._running))

    async def finished(self, deadline: Deadline) -> bool:
        """Wait for what runs. False: a call outlasts the deadline."""
        left = [asyncio.wrap_future(call) for call in list(self._running)]
        for one in left:
            one.add_done_callback(_seen)
        return not left or not (await asyncio.wait(left, timeout=deadline.remaining()))[1]


def _seen(future: asyncio.Future[Any]) -> None:
    """Its error was for whoever called, who has gone: asyncio need not report it."""
    if not future.cancelled():
        future.exception()
