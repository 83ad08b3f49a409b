"""No dialect: dead letters carry only `tidegate.dlq.*`."""

from __future__ import annotations

from typing import ClassVar

from dlq.dialects.base import Foreign
from dlq.kind import Kind
from dlq.template import Layout


class NoDialect:
    """Writes nothing, reads nothing."""

    name: ClassVar[str] = "none"
    prefixes: ClassVar[tuple[str, ...]] = ()

    def write(self, kind: Kind, stack: str | None) -> Layout:
        return []

    def read(self, values: dict[str, bytes]) -> Foreign | None:
        return None
