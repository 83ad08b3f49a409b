"""Results as a lake has them: typed by the plan, whatever came from the database; times as moments in UTC."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tidegate.stages.plan import AggregationPlan

WINDOW = ("window_start", "window_end")
_MOMENT = pa.timestamp("us", "UTC")
_WIDER = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20, 0)}


def lake_schema(aggregation: AggregationPlan) -> pa.Schema:
    """The columns of one aggregation's results: window, group, measures, then what every result has."""
    named = [(column.name, _stored(column.type)) for column in aggregation.group]
    named += [(measure.name, _stored(measure.result_type)) for measure in aggregation.measures]
    own = [("records", pa.int64()), ("revision", pa.int64()), ("upto", pa.string()), ("final", pa.bool_())]
    return pa.schema([*((name, _MOMENT) for name in WINDOW), *named, *own])


def typed(aggregation: AggregationPlan, results: pa.Table) -> pa.Table:
    """`results` of Target.write under the lake's columns."""
    schema = lake_schema(aggregation)
    columns = [_cast(results[field.name], field.name, field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def there(results: pa.Table) -> pa.Table:
    """Without what was taken away."""
    return results.filter(pc.greater(results["records"], 0))


def _cast(column: pa.ChunkedArray, name: str, type_: pa.DataType) -> pa.ChunkedArray:
    if name in WINDOW:
        column = pc.cast(column, pa.timestamp("ms", "UTC"))
    return pc.cast(column, type_)


def _stored(type_: pa.DataType) -> pa.DataType:
    """Lakes know no unsigned numbers; the stages' timestamps are naive UTC."""
    if pa.types.is_timestamp(type_):
        return _MOMENT
    return _WIDER.get(type_, type_)
