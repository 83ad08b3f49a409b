"""count: of records, or of values that are not null."""

from __future__ import annotations

import pyarrow as pa

from tidegate.stages.measures.base import Measure, part, quoted
from tidegate.stages.plan import MeasurePlan, PartialColumn


class Count(Measure):
    kind = "count"

    def expects(self, value_type: pa.DataType | None) -> str | None:
        return None

    def partials(self, name: str, value_type: pa.DataType | None) -> tuple[PartialColumn, ...]:
        return (PartialColumn(f"{name}__n", pa.int64()),)

    def result_type(self, value_type: pa.DataType | None) -> pa.DataType:
        return pa.int64()

    def collect(self, measure: MeasurePlan, value: str) -> dict[str, str]:
        return {part(measure, "n"): "count(*)" if measure.of is None else f"count({value})"}

    def merge(self, measure: MeasurePlan) -> dict[str, str]:
        return {part(measure, "n"): f"CAST(sum({quoted(measure, 'n')}) AS BIGINT)"}

    def result(self, measure: MeasurePlan) -> str:
        return quoted(measure, "n")
