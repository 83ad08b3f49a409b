"""sum: exact for integers and decimals, compensated for doubles; NULL when there was no value."""

from __future__ import annotations

import pyarrow as pa

from tidegate.errors import AggregateOverflow
from tidegate.stages.measures.base import WIDEST, Measure, expects_number, is_exact, part, quoted
from tidegate.stages.plan import MeasurePlan, PartialColumn


class Sum(Measure):
    """Holds the sum and the number of values, so that "no value" is told from zero after any merge."""

    kind = "sum"

    def expects(self, value_type: pa.DataType | None) -> str | None:
        return expects_number(value_type)

    def partials(self, name: str, value_type: pa.DataType | None) -> tuple[PartialColumn, ...]:
        assert value_type is not None, "a sum has an argument"
        return PartialColumn(f"{name}__sum", _sum_type(value_type)), PartialColumn(f"{name}__n", pa.int64())

    def result_type(self, value_type: pa.DataType | None) -> pa.DataType:
        assert value_type is not None, "a sum has an argument"
        return _sum_type(value_type)

    def collect(self, measure: MeasurePlan, value: str) -> dict[str, str]:
        return {part(measure, "sum"): f"{_adder(measure)}({value})", part(measure, "n"): f"count({value})"}

    def merge(self, measure: MeasurePlan) -> dict[str, str]:
        total, n = quoted(measure, "sum"), quoted(measure, "n")
        return {part(measure, "sum"): f"{_adder(measure)}({total})", part(measure, "n"): f"CAST(sum({n}) AS BIGINT)"}

    def result(self, measure: MeasurePlan) -> str:
        return quoted(measure, "sum")

    def finish_partial(self, measure: MeasurePlan, table: pa.Table) -> pa.Table:
        return _check(measure, table)

    def finish_merge(self, measure: MeasurePlan, table: pa.Table) -> pa.Table:
        return _check(measure, table)


def _sum_type(value_type: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal(value_type):
        return pa.decimal128(WIDEST, value_type.scale)
    return pa.decimal128(WIDEST, 0) if is_exact(value_type) else pa.float64()


def _adder(measure: MeasurePlan) -> str:
    """fsum compensates: a plain sum of doubles loses digits with the order of the rows, so with the batch size."""
    assert measure.value_type is not None, "a sum has an argument"
    return "sum" if is_exact(measure.value_type) else "fsum"


def _check(measure: MeasurePlan, table: pa.Table) -> pa.Table:
    """DuckDB adds in 127 bits and lets a 39th digit through (up to 1.7e38); Arrow's full validation sees it."""
    try:
        table.column(part(measure, "sum")).validate(full=True)
    except pa.ArrowInvalid as error:
        raise AggregateOverflow(f"measure '{measure.name}'", str(error)) from error
    return table
