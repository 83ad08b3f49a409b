"""The breakers of a process, so that health and metrics can name them all; and who listens to all of them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from tidegate.resilience.breaker import CircuitBreaker
from tidegate.resilience.listener import Listener, Listeners


class Registry:
    """Breakers in use, held weakly (one that nobody holds any more is not listed), and their listeners."""

    def __init__(self) -> None:
        self._breakers: weakref.WeakSet[CircuitBreaker] = weakref.WeakSet()
        self._lock = threading.Lock()  # a set that grows while it is listed raises RuntimeError
        self.listeners = Listeners()

    def add(self, breaker: CircuitBreaker) -> None:
        """List `breaker`."""
        with self._lock:
            self._breakers.add(breaker)

    def breakers(self) -> list[CircuitBreaker]:
        """All breakers by name. Two may share a name (two stores of one database): both are listed."""
        with self._lock:
            listed = list(self._breakers)
        return sorted(listed, key=lambda breaker: breaker.name)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` of every guarded call in the registry, those of guards to come included.

        Returns what ends that.
        """
        return self.listeners.add(listener)


PROCESS = Registry()
"""Where guards register unless they are told otherwise."""


def breakers() -> list[CircuitBreaker]:
    """All breakers of this process, by name."""
    return PROCESS.breakers()
