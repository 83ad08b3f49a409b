"""What every codec is: a type for msgspec, and a way from a column of its values to an Arrow array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa


class Fault(NamedTuple):
    """One value that msgspec let through and the column cannot hold. `path` is relative: "", "[2]", ".at"."""

    row: int
    path: str
    error_type: str
    message: str
    found: object


class Codec(ABC):
    """One type of the schema.

    What msgspec checks by itself (JSON types, integer bounds, calendar dates) never reaches `array`. What it cannot
    check (decimals, timestamps) comes back as faults, found on the whole column at once; their rows are null.
    """

    annotation: Any
    """The Python type that msgspec decodes a value to, null apart."""
    null: object = None
    """What stands for JSON's null (and a missing nullable field) before `array`."""

    def __init__(self, type_: pa.DataType) -> None:
        self.type = type_

    @property
    def nullable_annotation(self) -> Any:
        return self.annotation | None

    @abstractmethod
    def array(self, values: Sequence[Any]) -> tuple[pa.Array, list[Fault]]:
        """The values as an array of `self.type`, same length; None stays null."""


class PlainCodec(Codec):
    """Strings, integers, doubles, booleans and dates: msgspec has checked all there is to check."""

    def __init__(self, type_: pa.DataType, annotation: Any) -> None:
        super().__init__(type_)
        self.annotation = annotation

    def array(self, values: Sequence[Any]) -> tuple[pa.Array, list[Fault]]:
        return pa.array(values, type=self.type), []


def failing(function: Callable[[Any], object], values: Iterable[Any], *errors: type[Exception]) -> list[int]:
    """The indices of the values for which `function` raises one of `errors`.

    `extend` keeps what it had when the iterator raised, so one bad value costs one exception and not a Python loop.
    """
    bad: list[int] = []
    done: list[object] = []
    remaining = iter(values)
    while True:
        try:
            done.extend(map(function, remaining))
        except errors:
            bad.append(len(done))
            done.append(None)
        else:
            return bad
