"""No dialect: dead letters carry only `tidegate.dlq.*`."""

from __future__ import annotations

from typing import ClassVar

from dlq.dialects.base import Failure, Foreign, Headers


class NoDialect:
    """Writes nothing, reads nothing."""

    name: ClassVar[str] = "none"
    prefixes: ClassVar[tuple[str, ...]] = ()

    def write(self, failure: Failure) -> Headers:
        return []

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        return None
