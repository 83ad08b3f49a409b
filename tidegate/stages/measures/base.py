"""What a measure is: how its partial is collected from rows, how partials merge, how a result is read from one.

Partials of one window and group merge, in any order and any grouping, to the same partial. So neither batch sizes nor
the engine show in a result (in a sum of doubles: in its last bits).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import pyarrow as pa

from tidegate.stages.plan import MeasurePlan, PartialColumn
from tidegate.stages.sql import quote

WIDEST = 38  # digits of an exact sum: the widest decimal of Arrow, DuckDB and Spark alike


class Measure(ABC):
    """One kind of measure. `collect`, `merge` and `result` are SQL for DuckDB; the `finish_…` hooks do what SQL cannot.

    In `collect` the row's columns are `_event_time` (ms), `_offset`, `_order` (its rank by event time, then offset) and
    the argument under the name `value`. In `merge` and `result` they are the measure's own partial columns.
    """

    kind: ClassVar[str]
    needs_order: ClassVar[bool] = False  # whether `collect` reads `_order`, which costs a sort

    @abstractmethod
    def expects(self, value_type: pa.DataType | None) -> str | None:
        """None when values of this type can be measured (None: no argument is given); else what is expected instead."""

    @abstractmethod
    def partials(self, name: str, value_type: pa.DataType | None) -> tuple[PartialColumn, ...]:
        """The partial columns of a measure called `name`."""

    @abstractmethod
    def result_type(self, value_type: pa.DataType | None) -> pa.DataType:
        """The type of the result."""

    @abstractmethod
    def collect(self, measure: MeasurePlan, value: str) -> dict[str, str]:
        """Partial column → aggregate over the rows of one group."""

    @abstractmethod
    def merge(self, measure: MeasurePlan) -> dict[str, str]:
        """Partial column → aggregate over partials of one group."""

    @abstractmethod
    def result(self, measure: MeasurePlan) -> str:
        """The result, from one partial."""

    def finish_partial(self, measure: MeasurePlan, table: pa.Table) -> pa.Table:
        """Complete what `collect` gave: a row per group, its columns named like the partial's."""
        return table

    def finish_merge(self, measure: MeasurePlan, table: pa.Table) -> pa.Table:
        """Complete what `merge` gave: a row per group, its columns named like the partial's."""
        return table

    def finish_result(self, measure: MeasurePlan, table: pa.Table) -> pa.Table:
        """Complete what `result` gave: a row per group, its column named like the measure."""
        return table


def part(measure: MeasurePlan, suffix: str) -> str:
    """The name of one partial column: `total__sum`."""
    return f"{measure.name}__{suffix}"


def quoted(measure: MeasurePlan, suffix: str) -> str:
    """The same in SQL."""
    return quote(part(measure, suffix))


def replace(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with one column's values replaced."""
    return table.set_column(table.schema.get_field_index(name), name, column)


def is_exact(value_type: pa.DataType) -> bool:
    """Whether values of this type are summed exactly: integers and decimals."""
    return bool(pa.types.is_integer(value_type) or pa.types.is_decimal(value_type))


def is_number(value_type: pa.DataType) -> bool:
    """Whether values of this type add up."""
    return is_exact(value_type) or bool(pa.types.is_floating(value_type))


def is_single(value_type: pa.DataType) -> bool:
    """Whether values of this type are single ones that compare: no arrays, structs or bytes."""
    types = pa.types
    others = (types.is_string, types.is_boolean, types.is_date, types.is_timestamp)
    return is_number(value_type) or any(test(value_type) for test in others)


def expects_single(value_type: pa.DataType | None) -> str | None:
    """For kinds that keep one of the values."""
    if value_type is not None and is_single(value_type):
        return None
    return "of: an expression of type string, int, bigint, decimal, double, boolean, date or timestamp"


def expects_number(value_type: pa.DataType | None) -> str | None:
    """For kinds that add values up."""
    if value_type is not None and is_number(value_type):
        return None
    return "of: an expression of type int, bigint, decimal or double"
