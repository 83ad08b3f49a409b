"""Calls in threads: what a cancellation takes back, and what has to be waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.aio import in_a_loop
from tidegate.calls import Calls
from tidegate.clock import Deadline


@pytest.fixture
def one_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_the_result_and_the_error_are_the_callers(one_thread: ThreadPoolExecutor) -> None:
    """As if it had been called here; afterwards nothing runs."""

    @in_a_loop
    async def run() -> None:
        calls = Calls(one_thread)
        assert await calls(lambda: 3) == 3
        with pytest.raises(ZeroDivisionError):
            await calls(lambda: 1 // 0)
        assert await calls.finished(Deadline(0))
        assert not calls.running

    run()


def test_a_call_that_runs_is_waited_for_and_one_that_has_not_begun_never_does(one_thread: ThreadPoolExecutor) -> None:
    """Cancelling the waiting tasks stops neither the thread nor the wait for it; the queue behind it is dropped."""

    @in_a_loop
    async def run() -> None:
        calls, begun, go, ran = Calls(one_thread), threading.Event(), threading.Event(), list[int]()

        def slow() -> None:
            begun.set()
            go.wait(5)
            ran.append(1)

        tasks = [asyncio.create_task(calls(slow)), asyncio.create_task(calls(lambda: ran.append(2)))]
        await asyncio.to_thread(begun.wait, 5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not await calls.finished(Deadline(0.02))
        assert calls.running
        go.set()
        assert await calls.finished(Deadline(5))
        assert (ran, calls.running) == ([1], False)

    run()
