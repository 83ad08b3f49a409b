"""One micro-batch in hand, while whoever plans them is at the next: Spark takes some 0.13 s to plan one and to keep its account,
in which the executors would have nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from tidegate.record import TopicPartition

Ends = Mapping[TopicPartition, int]


class Ahead:
    """Takes micro-batches one after the other, in a thread of its own. `give` is for one thread, all else for another."""

    def __init__(self, take: Callable[[Ends], None]) -> None:
        self._take = take
        self._taking = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._last: Future[None] | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._taking.shutdown()

    def give(self, ends: Ends) -> None:
        """Begin with this one as soon as the one before is taken. Raises what has ended that."""
        self.wait()
        self._last = self._taking.submit(self._take, ends)

    def wait(self) -> None:
        """Until the last one is taken. Raises what has ended it."""
        if (last := self._last) is not None:
            last.result()

    def look(self) -> None:
        """If none is being taken, raise what has ended the last one."""
        if (last := self._last) is not None and last.done():
            last.result()
