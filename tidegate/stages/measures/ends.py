"""What first and last share: one value is kept, with the event time and offset that chose it."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from tidegate.stages.measures.base import Measure, expects_single, part, quoted
from tidegate.stages.plan import MeasurePlan, PartialColumn


class End(Measure):
    """Ordered by (event time, offset) among values that are not null; NULL when there was none.

    Partials of two source partitions can tie in both; then the value itself decides, so that the order of the partials
    never does. `chooser` is `min` or `max`.
    """

    needs_order = True
    chooser: ClassVar[str]

    def expects(self, value_type: pa.DataType | None) -> str | None:
        return expects_single(value_type)

    def partials(self, name: str, value_type: pa.DataType | None) -> tuple[PartialColumn, ...]:
        assert value_type is not None, f"{self.kind} has an argument"
        return (
            PartialColumn(f"{name}__{self.kind}", value_type),
            PartialColumn(f"{name}__at", pa.int64()),  # event time, ms
            PartialColumn(f"{name}__offset", pa.int64()),
        )

    def result_type(self, value_type: pa.DataType | None) -> pa.DataType:
        assert value_type is not None, f"{self.kind} has an argument"
        return value_type

    def collect(self, measure: MeasurePlan, value: str) -> dict[str, str]:
        given = f"FILTER ({value} IS NOT NULL)"
        return {
            part(measure, self.kind): f"arg_{self.chooser}({value}, _order)",  # skips rows whose value is null
            part(measure, "at"): f"{self.chooser}(_event_time) {given}",
            part(measure, "offset"): f"arg_{self.chooser}(_offset, _order) {given}",
        }

    def merge(self, measure: MeasurePlan) -> dict[str, str]:
        value, at, offset = (quoted(measure, suffix) for suffix in (self.kind, "at", "offset"))
        given = f"FILTER ({value} IS NOT NULL)"
        chosen = f"arg_{self.chooser}({{}}, row({at}, {offset}, {value})) {given}"
        return {
            part(measure, self.kind): chosen.format(value),
            part(measure, "at"): f"{self.chooser}({at})",
            part(measure, "offset"): chosen.format(offset),
        }

    def result(self, measure: MeasurePlan) -> str:
        return quoted(measure, self.kind)
