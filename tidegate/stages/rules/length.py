"""length: the number of characters is within bounds."""

from __future__ import annotations

import pyarrow as pa

from tidegate.config.stages import Length
from tidegate.stages.rules.base import ColumnCheck


class LengthCheck(ColumnCheck[Length]):
    """Characters are Unicode code points. A null passes."""

    label = "length"

    def fit(self) -> None:
        if not pa.types.is_string(self.type):
            raise self.does_not_fit("a string column")

    @property
    def condition(self) -> str:
        bounds = ((">=", self.rule.min), ("<=", self.rule.max))
        parts = [f"length({self.value}) {op} {bound}" for op, bound in bounds if bound is not None]
        return f"coalesce({' AND '.join(parts)}, TRUE)"

    @property
    def expectation(self) -> str:
        low, high = self.rule.min, self.rule.max
        if low is None:
            return f"expected at most {high} characters"
        return f"expected at least {low} characters" if high is None else f"expected {low} to {high} characters"
