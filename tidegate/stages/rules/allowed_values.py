"""allowedValues: the value is one of a list."""

from __future__ import annotations

import pyarrow as pa

from tidegate.config.stages import AllowedValues
from tidegate.errors import ConfigError
from tidegate.stages.decode.shown import shown
from tidegate.stages.rules.base import ColumnCheck
from tidegate.stages.rules.values import sql, typed, written_as
from tidegate.stages.types import type_name


class AllowedValuesCheck(ColumnCheck[AllowedValues]):
    """Each listed value must be one that the column can hold. A null passes."""

    label = "allowedValues"

    def fit(self) -> None:
        if pa.types.is_nested(self.type) or pa.types.is_binary(self.type):
            raise self.does_not_fit("a column of strings, numbers, booleans, dates or timestamps")
        values = []
        for index, written in enumerate(self.rule.values):
            value = typed(written, self.type)
            if value is None:
                raise ConfigError(
                    f"no value of the column {self.column} ({type_name(self.type)})",
                    field=f"{self.at}.values[{index}]",
                    value=written,
                    expected=written_as(self.type),
                )
            values.append(sql(value, self.type))
        self._listed = ", ".join(values)

    @property
    def condition(self) -> str:
        return f"coalesce({self.value} IN ({self._listed}), TRUE)"

    @property
    def expectation(self) -> str:
        return f"expected one of {shown(', '.join(map(_written, self.rule.values)))}"


def _written(value: object) -> str:
    """As in the file: a boolean is `true`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
