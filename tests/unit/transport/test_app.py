"""One end of the process, whoever asks for it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import faust
import pytest

from tests.aio import in_a_loop
from tidegate.clock import Deadline
from transport import BatchApp


@in_a_loop
async def _twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stops, finish, deadline = list[int](), asyncio.Event(), Deadline(5)

    async def stop(_: Any) -> None:
        stops.append(1)
        await finish.wait()

    monkeypatch.setattr(faust.App, "stop", stop)
    app = BatchApp("one-end")
    app.tide = SimpleNamespace(lifecycle=SimpleNamespace(begin_to_end=lambda: deadline))  # type: ignore[assignment]  # all that the app asks of it
    failure, signal = asyncio.create_task(app.stop()), asyncio.create_task(app.stop())
    await asyncio.sleep(0.01)
    assert (stops, failure.done(), signal.done(), app.tide_deadline) == ([1], False, False, deadline)
    failure.cancel()
    await asyncio.sleep(0.01)
    finish.set()
    await asyncio.wait_for(signal, 5)
    assert stops == [1]


def test_a_signal_while_a_failure_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stop: the second to ask waits for its end, instead of closing the loop under it."""
    _twice(monkeypatch)
