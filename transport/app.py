"""The Faust app of a process that works on record batches, and its agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import faust
from faust.app.base import BootStrategy
from mode.supervisors import CrashingSupervisor

from tidegate.clock import Deadline
from tidegate.errors import TidegateError
from transport.driver import batch_topic
from transport.lifecycle import Lifecycle


class Runtime(Protocol):
    """Everything of the process that is not Faust's."""

    @property
    def lifecycle(self) -> Lifecycle: ...

    async def set_up(self, app: Any) -> None:
        """Before anything is consumed. A TidegateError ends the process with its text and exit code."""

    async def take_down(self) -> None:
        """After partitions have been let go of, and the group has been left."""


class _WithoutWeb(BootStrategy):
    """Faust's own web server listens on every address, on one fixed port, and shows the tables: ours takes its place.

    (`web_enabled=False` would not do: Faust's command line sets it back.)
    """

    enable_web = False


class BatchApp(faust.App):
    """A Faust app that sets its runtime up before anything is consumed, and takes it down last."""

    BootStrategy = _WithoutWeb
    tide: Runtime
    tide_deadline: Deadline | None = None
    _stopping: asyncio.Task[None] | None = None

    async def on_first_start(self) -> None:
        try:
            await self.tide.set_up(self)
        except TidegateError as error:
            self.tide.lifecycle.give_up(error)
        await super().on_first_start()

    async def stop(self) -> None:
        """One stop, whoever asks for it, and all who ask wait for its end: a signal may come while a failure ends the
        process, and the other way round."""
        if self._stopping is None:
            self.tide_deadline = self.tide.lifecycle.begin_to_end()
            self._stopping = asyncio.create_task(super().stop(), name="stop")
        await asyncio.shield(self._stopping)

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        try:
            await self.tide.take_down()
        finally:
            self.tide.lifecycle.stopped(1 if self.crashed else 0)


def add_agent(app: faust.App, name: str, topics: Iterable[str], offer: Callable[[Any, Any], None]) -> None:
    """An agent's whole work: each event, whose value is a `SourceBatch`, is offered with its stream, which takes the
    acknowledgement (`await stream.ack(event)`) when the batch is committed."""

    async def hand_over(stream: Any) -> None:
        stream = stream.noack()
        async for event in stream.events():
            offer(stream, event)

    hand_over.__name__ = hand_over.__qualname__ = name
    app.agent(batch_topic(app, *topics), name=name, concurrency=1, supervisor_strategy=CrashingSupervisor)(hand_over)
