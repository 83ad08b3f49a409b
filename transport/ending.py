"""How a process ends: one budget for all of it, and a last resort that nothing can hold up.

1. the first SIGTERM or SIGINT, or the first failure, starts the clock; /ready says so from then on
2. for `drainTimeout` what is in hand may be finished; then partitions are let go of, and the group is left
3. `GRACE` seconds later the process ends, whatever hangs: it says in what, and with which code

A thread cannot be stopped, and Python waits for its threads when it exits: a handler that never comes back would keep the
process for ever. Nothing is lost by ending it: what was not committed is read again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

from tidegate.clock import Deadline

GRACE = 8.0
"""Seconds beyond the drain; with the default drain of 20 it ends before Kubernetes kills after 30. With a broker that is
away, closing producers takes 2, the last commit 1, leaving the group 2."""

_UNRESPONSIVE = 5.0  # seconds later the process ends without Python: a thread may keep the interpreter for itself
_FAREWELL = 5.0  # seconds for Faust and Python to leave when all is closed; a question to a broker may take 30
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


class Ending:
    """One per process. `drain_timeout` in seconds; `begun` is called once, from any thread, when the end begins; `overdue`
    ends the process when the time is up."""

    def __init__(self, drain_timeout: float, begun: Callable[[], None], overdue: Callable[[], None]) -> None:
        self._drain_timeout, self._begun, self._overdue = drain_timeout, begun, overdue
        self._lock = threading.Lock()
        self._last_resort: threading.Timer | None = None
        self._limit = Deadline(0.0)
        self.deadline: Deadline | None = None

    def begin(self) -> Deadline:
        """The process is to end: the time runs from the first call. Returns the deadline of all that is in hand."""
        with self._lock:
            if self.deadline is not None:
                return self.deadline
            self.deadline = Deadline(self._drain_timeout)
            limit = self._drain_timeout + GRACE
            self._limit = Deadline(limit)
            faulthandler.dump_traceback_later(limit + _UNRESPONSIVE, exit=True, file=sys.__stderr__ or 2)
            self._last_resort = _after(limit, self._overdue)
        self._begun()
        return self.deadline

    def close(self, code: int) -> None:
        """All is closed: what threads still do is of no consequence, and not waited for beyond the same limit."""
        if self._last_resort is not None:
            self._last_resort.cancel()
        _after(min(_FAREWELL, self._limit.remaining()), lambda: os._exit(code))

    def watch_signals(self) -> None:
        """Learn of SIGTERM and SIGINT in a thread of ours, before the loop does, or while it is held up. From the main
        thread, once the loop has its handlers."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        loops = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._relay, args=(ours, theirs, loops), name="signals", daemon=True).start()

    def _relay(self, ours: socket.socket, theirs: socket.socket, loops: int) -> None:
        """`theirs` is held here: the kernel writes to its number for as long as the process lives."""
        while numbers := ours.recv(64):
            if _SIGNALS & set(numbers):
                self.begin()
            if loops >= 0:
                with contextlib.suppress(OSError):  # the loop has been closed
                    os.write(loops, numbers)


def _after(seconds: float, do: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, do)
    timer.daemon = True
    timer.start()
    return timer
