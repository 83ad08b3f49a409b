"""What every rule is: a name, a severity, what a failure leads to, and a SQL condition that is TRUE when it passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

import pyarrow as pa

from tidegate.config.stages import Rule
from tidegate.errors import ConfigError
from tidegate.stages.decode.shown import shown
from tidegate.stages.sql import quote
from tidegate.stages.types import nearest_name, type_name

R = TypeVar("R", bound=Rule)


class Check(ABC, Generic[R]):
    """One rule, compiled against the columns after decode. `at` is its field path in the pipeline file.

    Raises ConfigError when it is made of a column that is not there, or that the rule says nothing about.
    """

    label: ClassVar[str]
    """The rule's `type` in the file, and the first part of its default name."""

    def __init__(self, rule: R, schema: pa.Schema, at: str) -> None:
        self.rule, self.schema, self.at = rule, schema, at
        self.severity = rule.severity
        self.on_failure = rule.on_failure or ("deadLetter" if rule.severity == "error" else "warn")
        self.compile()

    @abstractmethod
    def compile(self) -> None:
        """Check the rule against the schema. Raises ConfigError."""

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """The columns it looks at: those are shown when it fails."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """What the default name says it is about: `range(amount)`."""

    @property
    @abstractmethod
    def condition(self) -> str:
        """SQL over the rows: TRUE when a row passes, FALSE or NULL when it fails."""

    @property
    @abstractmethod
    def expectation(self) -> str:
        """What was expected, in words; part of the reason in the dead letter."""

    @property
    def field(self) -> str:
        """What the reason names as its field."""
        return ", ".join(self.columns)

    def found(self, values: Sequence[pa.ChunkedArray]) -> list[str]:
        """What was there, for each row of some: the values of `columns` in them."""
        return [shown(value) for value in values[0].to_pylist()]


class ColumnCheck(Check[R]):
    """A rule about one column. `value` is the column in SQL; a null passes unless the rule is about nulls."""

    column: str
    type: pa.DataType

    def compile(self) -> None:
        name: str = self.rule.column  # type: ignore[union-attr]  # the rules that have no column override this
        known = {column.lower(): column for column in self.schema.names}
        if name.lower() not in known:
            nearest = nearest_name(name, tuple(self.schema.names))
            raise ConfigError(
                "there is no such column",
                field=f"{self.at}.column",
                value=name,
                expected=", ".join(self.schema.names),
                hint=f"did you mean {nearest!r}?" if nearest else None,
            )
        self.column = known[name.lower()]
        self.type = self.schema.field(self.column).type
        self.value = quote(self.column)
        self.fit()

    @abstractmethod
    def fit(self) -> None:
        """Check that the rule fits the column's type, and read its values as of that type. Raises ConfigError."""

    @property
    def columns(self) -> Sequence[str]:
        return (self.column,)

    @property
    def subject(self) -> str:
        return self.column

    def does_not_fit(self, needed: str) -> ConfigError:
        """The error for a column of the wrong type."""
        return ConfigError(
            f"a {self.label} rule does not fit this column",
            field=f"{self.at}.column",
            value=f"{self.column} ({type_name(self.type)})",
            expected=needed,
        )
