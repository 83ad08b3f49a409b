"""range: min ≤ value ≤ max, of numbers, dates, timestamps and strings."""

from __future__ import annotations

import pyarrow as pa

from tidegate.config.stages import Range
from tidegate.errors import ConfigError
from tidegate.stages.rules.base import ColumnCheck
from tidegate.stages.rules.values import Comparable, sql, typed, written_as
from tidegate.stages.types import type_name


class RangeCheck(ColumnCheck[Range]):
    """Strings compare by their code points. A null passes."""

    label = "range"

    def fit(self) -> None:
        types = pa.types
        ordered = (types.is_integer, types.is_floating, types.is_decimal, types.is_temporal, types.is_string)
        if not any(fits(self.type) for fits in ordered):
            raise self.does_not_fit("a number, date, timestamp or string")
        low, high = self._bound("min", self.rule.min), self._bound("max", self.rule.max)
        if low is not None and high is not None and low > high:  # type: ignore[operator]  # both are of the column's type
            raise ConfigError(
                "`min` is above `max`: nothing can pass",
                field=f"{self.at}.min",
                value=self.rule.min,
                expected="at most what `max` says",
            )
        bounds = ((">=", low), ("<=", high))
        self._conditions = [f"{self.value} {op} {sql(bound, self.type)}" for op, bound in bounds if bound is not None]

    def _bound(self, side: str, written: float | int | str | None) -> Comparable | None:
        if written is None:
            return None
        bound = typed(written, self.type)
        if bound is None:
            raise ConfigError(
                f"no value of the column {self.column} ({type_name(self.type)})",
                field=f"{self.at}.{side}",
                value=written,
                expected=written_as(self.type),
            )
        return bound

    @property
    def condition(self) -> str:
        return f"coalesce({' AND '.join(self._conditions)}, TRUE)"

    @property
    def expectation(self) -> str:
        low, high = self.rule.min, self.rule.max
        if low is None:
            return f"expected at most {high}"
        return f"expected at least {low}" if high is None else f"expected {low} to {high}"
