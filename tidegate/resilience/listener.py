"""Who is told about retries and breakers.

A listener can be wrong without harm: what it raises is logged and goes no further.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from tidegate.resilience.breaker import CircuitBreaker

log = structlog.get_logger(__name__)


class BreakerState(StrEnum):
    """closed: calls pass. open: they are rejected. half_open: a few probes pass, and the first to end decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CallOutcome(StrEnum):
    """How one call through a breaker ended.

    `ignored`: an error that says nothing about the dependency, or a cancellation.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
    REJECTED = "rejected"


class RetryKind(StrEnum):
    """How a call with retries ended (resilience4j's four kinds)."""

    SUCCESSFUL_WITHOUT_RETRY = "successful_without_retry"
    SUCCESSFUL_WITH_RETRY = "successful_with_retry"
    FAILED_WITHOUT_RETRY = "failed_without_retry"
    FAILED_WITH_RETRY = "failed_with_retry"


class Listener:
    """Override what you want to hear of. Called outside every lock, in the thread where it happened; be quick."""

    def on_call(self, breaker: CircuitBreaker, outcome: CallOutcome) -> None:
        """A call through `breaker` ended, or was rejected."""

    def on_transition(self, breaker: CircuitBreaker, before: BreakerState, after: BreakerState) -> None:
        """`breaker` changed its state. Transitions of one breaker are told in the order in which they happened."""

    def on_retry(self, target: str, attempt: int, wait: float, error: BaseException) -> None:
        """Attempt number `attempt` (from 1) of `target` failed with `error`; the next follows in `wait` seconds."""

    def on_finish(self, target: str, kind: RetryKind) -> None:
        """A call of `target` is over: it has its result, or no attempt is left."""


class Listeners:
    """A set of listeners, with the listeners of a wider scope (`parent`) told after one's own."""

    def __init__(self, parent: Listeners | None = None) -> None:
        self._parent = parent
        self._own: tuple[Listener, ...] = ()

    def add(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` from now on. Returns what ends that."""
        self._own = (*self._own, listener)

        def remove() -> None:
            self._own = tuple(other for other in self._own if other is not listener)

        return remove

    def tell(self, tell_one: Callable[[Listener], None]) -> None:
        """Call `tell_one` with each listener. What one raises is logged; the others are told all the same."""
        for listener in self._own:
            try:
                tell_one(listener)
            except Exception as error:
                log.error(
                    "resilience.listener_failed",
                    listener=type(listener).__name__,
                    exception="".join(traceback.format_exception(error)),
                )
        if self._parent is not None:
            self._parent.tell(tell_one)
