"""The compiled shape of a pipeline: typed columns, aggregations with their partial columns. Both engines and the store read it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from tidegate.config.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class PartialColumn:
    """One column of a measure's partial: `{measure}__n`, `__sum`, `__min`, `__max`, `__first`, `__last`, `__at`, `__offset`, `__sketch`."""

    name: str
    type: pa.DataType


@dataclass(frozen=True, slots=True)
class MeasurePlan:
    """One measure: its kind (`count`, `sum`, ...), its argument's SQL and type, its partial columns, its result's type."""

    name: str
    kind: str
    of: str | None
    value_type: pa.DataType | None
    partials: tuple[PartialColumn, ...]
    result_type: pa.DataType


@dataclass(frozen=True, slots=True)
class GroupColumn:
    name: str
    expression: str  # SQL; a plain column is its quoted name
    type: pa.DataType


@dataclass(frozen=True, slots=True)
class AggregationPlan:
    """One aggregation. `size` and `hop` in ms (equal for tumbling windows).

    `spreads`: records of one group can come from several source partitions, so that totals need the merge agent.
    """

    name: str
    size: int
    hop: int
    group: tuple[GroupColumn, ...]
    measures: tuple[MeasurePlan, ...]
    emit: str
    spreads: bool

    @property
    def partials(self) -> tuple[PartialColumn, ...]:
        return tuple(partial for measure in self.measures for partial in measure.partials)


@dataclass(frozen=True, slots=True)
class Plan:
    """A pipeline that can run. `decoded` are the columns after decode, `columns` those after the handlers."""

    pipeline: Pipeline
    decoded: pa.Schema
    columns: pa.Schema
    aggregations: tuple[AggregationPlan, ...]
