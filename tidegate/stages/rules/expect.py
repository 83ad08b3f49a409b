"""expect: a SQL boolean expression that must be TRUE."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from tidegate.config.stages import Expect
from tidegate.errors import ConfigError
from tidegate.stages.decode.shown import shown
from tidegate.stages.expressions import columns_of, infer_type, parenthesised
from tidegate.stages.rules.base import Check


class ExpectCheck(Check[Expect]):
    """NULL fails unless `nullPasses`: what cannot be said to be true is not."""

    label = "expect"

    def compile(self) -> None:
        field = f"{self.at}.expression"
        type_ = infer_type(self.rule.expression, self.schema, field=field)
        if not pa.types.is_boolean(type_):
            raise ConfigError(
                f"the expression gives {type_}, not a truth value",
                field=field,
                value=self.rule.expression,
                expected="a condition such as amount > 0",
            )
        self._columns = columns_of([self.rule.expression], self.schema)

    @property
    def columns(self) -> Sequence[str]:
        return self._columns

    @property
    def subject(self) -> str:
        return " ".join(self.rule.expression.split())

    @property
    def condition(self) -> str:
        expression = parenthesised(self.rule.expression)
        return f"coalesce({expression}, TRUE)" if self.rule.null_passes else expression

    @property
    def expectation(self) -> str:
        return f"expected {shown(self.subject)} to be true"

    def found(self, values: Sequence[pa.ChunkedArray]) -> list[str]:
        rows = zip(*(column.to_pylist() for column in values), strict=True)
        return [shown(", ".join(map(_named, self.columns, row))) for row in rows]


def _named(name: str, value: object) -> str:
    return f"{name} = {'null' if value is None else value}"
