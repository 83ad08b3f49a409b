"""Which errors are an outage: asked by the retry loop and by the breaker, answered by the error's class."""

from __future__ import annotations

import types
from collections.abc import Callable

from tidegate.errors import CircuitOpen, TidegateError


def is_transient(error: BaseException, extra: tuple[type[BaseException], ...] = ()) -> bool:
    """Whether `error` means that something outside is away, so that trying again can help.

    tidegate's own errors answer for themselves (`retriable`); of the others OSError (TimeoutError and ConnectionError
    are OSErrors) and the classes in `extra`. An open breaker is never worth a retry. Cancellation, KeyboardInterrupt
    and SystemExit are requests to stop and never an outage, whatever `extra` says.
    """
    if not isinstance(error, Exception) or isinstance(error, CircuitOpen):
        return False
    if isinstance(error, extra):
        return True
    if isinstance(error, TidegateError):
        return error.retriable
    return isinstance(error, OSError)


def refuse_coroutine(fn: Callable[..., object], result: object) -> None:
    """Raise TypeError when a synchronous call returned a coroutine, which nobody would await."""
    if type(result) is types.CoroutineType:
        result.close()
        raise TypeError(f"{fn!r} is asynchronous: use call_async, not call")
