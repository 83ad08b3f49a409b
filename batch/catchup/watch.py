"""Looks at a pipeline again and again, and suggests a catch-up, or makes it, when its file says that it is time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog

from batch.catchup.policy import Policy, Situation
from tidegate.clock import Clock, SystemClock
from tidegate.config.fallback import Fallback
from tidegate.errors import ConfigError, DependencyError, StoreHeld

log = structlog.get_logger(__name__)
EVERY: Final = 5.0  # seconds between looks


def require_mode(fallback: Fallback) -> None:
    """Raises ConfigError when the file does not say what to do when it is time."""
    if fallback.mode == "off":
        raise ConfigError(
            "nothing to watch for",
            field="fallback.mode",
            value=fallback.mode,
            expected="suggest or auto",
            hint="fallback: {mode: suggest, lagRecords: 1000000, workerDownFor: 2 minutes}",
        )


class Watcher:
    """`command`: what a person would type. `take_over` makes one catch-up, and raises what ends it."""

    def __init__(
        self,
        fallback: Fallback,
        look: Callable[[], Situation],
        take_over: Callable[[], None],
        command: str,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._mode, self._policy = fallback.mode, Policy(fallback)
        self._look, self._take_over, self._command = look, take_over, command
        self._clock = clock or SystemClock()
        self._said = False

    def run(self, stop: threading.Event, every: float = EVERY) -> None:
        """Until `stop` is set. Raises what ends a catch-up but StoreHeld: then another one is at it."""
        while not stop.is_set():
            self.once()
            stop.wait(every)

    def once(self) -> None:
        """One look, and what follows from it."""
        try:
            situation = self._look()
        except DependencyError as error:
            log.warning("fallback.blind", error=str(error))
            return
        reason = self._policy.reason(situation, self._clock.monotonic())
        if reason is None:
            self._said = False
        elif self._mode == "auto":
            log.warning("fallback.begins", reason=reason)
            self._try()
        elif not self._said:
            log.warning("fallback.suggested", reason=reason, command=self._command)
            self._said = True

    def _try(self) -> None:
        try:
            self._take_over()
        except StoreHeld as error:
            log.info("fallback.left", error=str(error))
