"""`module:name` in the pipeline file: found, imported, checked."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from tidegate.errors import ConfigError
from tidegate.stages.types import nearest_name


def load(reference: str, *, field: str) -> Any:
    """The object that `module:name` names. Raises ConfigError when there is no such module or name in it."""
    module_name, _, name = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise ConfigError(
            f"cannot import {module_name}: {type(error).__name__}: {error}",
            field=field,
            value=reference,
            expected="module:name, with the module on PYTHONPATH",
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            nearest = nearest_name(part, tuple(vars(found)))
            raise ConfigError(
                f"{module_name} has no {part!r}",
                field=field,
                value=reference,
                expected=f"module:name, with a name that {module_name} has",
                hint=f"did you mean {nearest!r}?" if nearest else None,
            )
        found = getattr(found, part)
    return found


def load_function(reference: str, *, field: str) -> Callable[..., Any]:
    """A handler. Raises ConfigError when the name is no function."""
    function = load(reference, field=field)
    if not callable(function):
        kind = type(function).__name__
        raise ConfigError(f"a {kind} cannot be called", field=field, value=reference, expected="module:function")
    return function  # type: ignore[no-any-return]  # whatever the module has; checked to be callable


def load_exceptions(references: tuple[str, ...], *, field: str) -> tuple[type[BaseException], ...]:
    """The classes of `retryOn`. Raises ConfigError when one is no exception."""
    classes = []
    for index, reference in enumerate(references):
        found = load(reference, field=f"{field}[{index}]")
        if not (isinstance(found, type) and issubclass(found, Exception)):
            raise ConfigError(
                "this is no exception",
                field=f"{field}[{index}]",
                value=reference,
                expected="module:name of an exception's class",
            )
        classes.append(found)
    return tuple(classes)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await; an object with an async `__call__` counts too."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def wants_context(function: Callable[..., Any], reference: str, *, field: str, takes: str) -> bool:
    """Whether a handler takes a context beside its record or table (`takes`). Raises ConfigError when it takes neither."""
    kind = "batch" if takes == "table" else takes
    expected = f"a function of ({takes}) or ({takes}, context)"
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some functions written in C
        problem, way_out = "Python cannot tell what this function takes", "call it in a function of your own"
        raise ConfigError(problem, field=field, value=reference, expected=expected, hint=way_out) from None
    for arguments in ((takes, "context"), (takes,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 2
    raise ConfigError(
        f"a function of {signature} is no {kind} handler", field=field, value=reference, expected=expected
    )
