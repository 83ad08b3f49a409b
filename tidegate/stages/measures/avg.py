"""avg: the sum divided by the number of values, as a double; NULL when there was no value."""

from __future__ import annotations

import pyarrow as pa

from tidegate.stages.measures.base import quoted
from tidegate.stages.measures.sum import Sum
from tidegate.stages.plan import MeasurePlan


class Avg(Sum):
    """Keeps the sum's partial; only the result differs."""

    kind = "avg"

    def result_type(self, value_type: pa.DataType | None) -> pa.DataType:
        return pa.float64()

    def result(self, measure: MeasurePlan) -> str:
        return f"CAST({quoted(measure, 'sum')} AS DOUBLE) / nullif({quoted(measure, 'n')}, 0)"
