"""How a command on Spark ends that is told to, by Ctrl-C, SIGTERM or `tidegate batch stop`: in a time that is known.

1. the micro-batch in hand has `worker.drainTimeout` to get into the store; a second signal ends that time
2. its Spark jobs are cancelled, and nothing of it is written
3. `GRACE` seconds later the process ends, whatever hangs

Nothing is lost by that, also in mid-commit: the store's transaction has come whole or not at all, and says itself where the next
run begins; what Kafka or a lake has got beside it comes again under the same ids and versions. Spark's JVM ends by itself when
its standard input is closed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import NoReturn

import structlog

from tidegate.clock import Deadline
from tidegate.farewell import end

log = structlog.get_logger(__name__)
GRACE = 30.0
"""Seconds. An executor's Python is killed after 2, dead letters for S3 are waited for 3, and Spark's JVM 20 (session.py)."""

_HUNG = 70  # the worker's exit code for the same
_POLL = 0.25  # seconds; a job that was on its way when the others were cancelled is so with the next look


class Stop(threading.Event):
    """Set it, and a run ends after the micro-batch in hand; with `urgent` set too, without it. `cancels`: whether there is a run
    that sees to that."""

    def __init__(self) -> None:
        super().__init__()
        self.urgent, self.cancels = threading.Event(), False
        self._asked = SimpleQueue[None]()

    def ask(self) -> None:
        """From a signal handler: what it has interrupted may be this very event, which is then locked, so it sets nothing itself.
        Raises KeyboardInterrupt when that was asked before, and nothing else would come of it."""
        if self.urgent.is_set() or (self.is_set() and not self.cancels):
            raise KeyboardInterrupt
        self._asked.put(None)

    def listen(self) -> NoReturn:
        """Do what is asked for, in a thread of its own."""
        while True:
            self._asked.get()
            if self.is_set():
                self.urgent.set()
            self.set()


@contextmanager
def cancelling(stop: Stop, drain: float, cancel: Callable[[], None]) -> Iterator[None]:
    """Within the block `cancel` is called, again and again, once the run has been told to stop and its time is up. `drain`: in
    seconds."""
    over = threading.Event()

    def watch() -> None:
        deadline: Deadline | None = None
        while not over.wait(_POLL):
            if not stop.is_set():
                continue
            deadline = deadline or Deadline(drain)
            if stop.urgent.is_set() or deadline.expired:
                log.warning("batch.cancelling", because="the run was told to stop, and its micro-batch takes too long")
                while not over.wait(_POLL):
                    cancel()

    # Not waited for: a call into a JVM that hangs does not come back.
    threading.Thread(target=watch, name="cancelling", daemon=True).start()
    stop.cancels = True
    try:
        yield
    finally:
        stop.cancels = False
        over.set()


@contextmanager
def stopping(drain: float) -> Iterator[Stop]:
    """For a command, in the main thread: a stop that Ctrl-C and SIGTERM ask for, and that the block does not outlast by more than
    `drain` seconds and the grace."""
    stop, over = Stop(), threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.ask()

    def last_resort() -> None:
        stop.wait()
        stop.urgent.wait(drain)
        if not over.wait(GRACE):
            end(_HUNG, "tidegate: the run was told to stop and hangs; it ends without waiting, and nothing is lost\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    for work, name in ((stop.listen, "signals"), (last_resort, "last resort")):
        threading.Thread(target=work, name=name, daemon=True).start()
    try:
        yield stop
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
