"""notNull: the column has a value."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from tidegate.config.stages import NotNull
from tidegate.stages.rules.base import ColumnCheck


class NotNullCheck(ColumnCheck[NotNull]):
    """Fits every type. An empty string is a value."""

    label = "notNull"

    def fit(self) -> None:
        return

    @property
    def condition(self) -> str:
        return f"{self.value} IS NOT NULL"

    @property
    def expectation(self) -> str:
        return "expected a value, found null"

    def found(self, values: Sequence[pa.ChunkedArray]) -> list[str]:
        return ["null"] * len(values[0])
