"""What min and max share: one value is kept, and which one is a function of its own."""

from __future__ import annotations

import pyarrow as pa

from tidegate.stages.measures.base import Measure, expects_single, part, quoted
from tidegate.stages.plan import MeasurePlan, PartialColumn


class Extreme(Measure):
    """`kind` is the SQL aggregate's name as well as the suffix of the partial. NULL when there was no value.

    Text compares by its bytes, as in DuckDB and in PostgreSQL's "C" collation.
    """

    def expects(self, value_type: pa.DataType | None) -> str | None:
        return expects_single(value_type)

    def partials(self, name: str, value_type: pa.DataType | None) -> tuple[PartialColumn, ...]:
        assert value_type is not None, f"{self.kind} has an argument"
        return (PartialColumn(f"{name}__{self.kind}", value_type),)

    def result_type(self, value_type: pa.DataType | None) -> pa.DataType:
        assert value_type is not None, f"{self.kind} has an argument"
        return value_type

    def collect(self, measure: MeasurePlan, value: str) -> dict[str, str]:
        return {part(measure, self.kind): f"{self.kind}({value})"}

    def merge(self, measure: MeasurePlan) -> dict[str, str]:
        return {part(measure, self.kind): f"{self.kind}({quoted(measure, self.kind)})"}

    def result(self, measure: MeasurePlan) -> str:
        return quoted(measure, self.kind)
