"""The hold on a pipeline: taken, renewed from a thread while this process lives, and let go of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import structlog

from tidegate.errors import DependencyError, StoreHeld
from tidegate.resilience.guard import Guard
from tidegate.store.base import Store

log = structlog.get_logger(__name__)
_RENEWALS = 4  # in the life of a hold: three may fail before it expires
_LOOK = 0.5  # seconds between looks whether another's hold is over


@contextmanager
def held(
    store: Store, guard: Guard, holder: str, duration: int, stop: threading.Event, waiting: Callable[[StoreHeld], None]
) -> Iterator[None]:
    """Within the block nobody else claims partitions of the pipeline. `duration` (ms): how long that outlives this process.

    A hold that is there is waited for as long as one lasts that nobody renews; `waiting` is told. Raises StoreHeld when it
    is renewed, DependencyError.
    """
    _take(store, guard, holder, duration, stop, waiting)
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, holder, duration, over), name="hold", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        _release(store, guard, holder, duration)


def _take(
    store: Store, guard: Guard, holder: str, duration: int, stop: threading.Event, waiting: Callable[[StoreHeld], None]
) -> None:
    """One more second than a hold lasts: whoever is still holding then is alive."""
    deadline = monotonic() + duration / 1000 + 1
    told = False
    while True:
        try:
            guard.call(store.hold, holder, duration)
            return
        except StoreHeld as error:
            if monotonic() > deadline or stop.is_set():
                raise
            if not told:
                waiting(error)
            told = True
            stop.wait(_LOOK)


def _renew(store: Store, holder: str, duration: int, over: threading.Event) -> None:
    """Whatever fails is tried again in time; a hold that is lost shows at the next write, which is fenced."""
    while not over.wait(duration / 1000 / _RENEWALS):
        try:
            if not store.renew_hold(holder, duration):
                log.error("catchup.hold_lost", holder=holder, meaning="it had expired, and a worker has gone on")
                return
        except DependencyError as error:
            log.warning("catchup.hold_not_renewed", error=str(error))


def _release(store: Store, guard: Guard, holder: str, duration: int) -> None:
    try:
        guard.call(store.release_hold, holder)
    except DependencyError as error:
        log.warning("catchup.hold_not_released", expires_within_seconds=duration / 1000, error=str(error))
