"""The compiled shape of a pipeline: typed columns, aggregations, partials. Both engines and the store read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import KafkaSink
from tidegate.config.stages import Aggregation, GroupBy, Hopping, Measure
from tidegate.errors import ConfigError, all_errors
from tidegate.stages.expressions import columns_of, infer_type, parenthesised
from tidegate.stages.sql import quote
from tidegate.stages.types import arrow_type, type_name, value_schema

# Rows that one batch may become in an aggregation with hopping windows: some hundred MB, whatever size / hop is.
_ROWS_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class PartialColumn:
    """One column of a measure's partial, `{measure}__` and: n, sum, min, max, first, last, at, offset, sketch."""

    name: str
    type: pa.DataType


@dataclass(frozen=True, slots=True)
class MeasurePlan:
    """One measure: kind (`count`, `sum`, ...), SQL and type of its argument, partial columns, type of its result."""

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
    def windows_per_record(self) -> int:
        """In how many windows a record counts."""
        return -(-self.size // self.hop)

    @property
    def partials(self) -> tuple[PartialColumn, ...]:
        return tuple(partial for measure in self.measures for partial in measure.partials)


@dataclass(frozen=True, slots=True)
class Plan:
    """A pipeline that can run. `decoded` are the columns after decode, `columns` those after the handlers.

    `read`: those of the decoded that something after the rules looks at. A handler may look at any.
    """

    pipeline: Pipeline
    decoded: pa.Schema
    columns: pa.Schema
    aggregations: tuple[AggregationPlan, ...]
    read: tuple[str, ...] = ()

    @property
    def records_at_once(self) -> int:
        """How many records a batch may have, so that they are not too many rows once each stands in all its windows."""
        return max(1, _ROWS_AT_ONCE // max((each.windows_per_record for each in self.aggregations), default=1))


def compile_plan(pipeline: Pipeline) -> Plan:
    """Type every expression of a pipeline and work out its columns and partials.

    Raises ConfigError that names the field (`aggregations[0].measures.total.of`), the value and what was expected, or
    ConfigErrors with all of them.
    """
    decoded = value_schema(pipeline)
    columns = handled_schema(pipeline, decoded)
    aggregations = []
    with all_errors() as part:
        with part():
            if pipeline.event_time is not None:
                _check_event_time(pipeline.event_time.column, decoded)
        with part():
            if pipeline.dedupe is not None:
                _single(pipeline.dedupe.key, decoded, "dedupe.key", _NO_DOUBLE_KEY)
        for index, aggregation in enumerate(pipeline.aggregations):
            with part():
                aggregations.append(_aggregation(pipeline, aggregation, columns, f"aggregations[{index}]"))
    return Plan(pipeline, decoded, columns, tuple(aggregations), tuple(_read(pipeline, aggregations, decoded)))


def _read(pipeline: Pipeline, aggregations: Sequence[AggregationPlan], decoded: pa.Schema) -> list[str]:
    if pipeline.handlers:
        return list(decoded.names)
    expressions = [group.expression for one in aggregations for group in one.group]
    expressions += [measure.of for one in aggregations for measure in one.measures if measure.of is not None]
    if pipeline.dedupe is not None:
        expressions.append(pipeline.dedupe.key)
    if pipeline.event_time is not None:
        expressions.append(quote(pipeline.event_time.column))
    return columns_of(expressions, decoded)


def handled_schema(pipeline: Pipeline, decoded: pa.Schema) -> pa.Schema:
    """The columns after the handlers: those of the last one that declares its output, else the decoded ones."""
    outputs = [handler.output for handler in pipeline.handlers if handler.output is not None]
    if not outputs:
        return decoded
    return pa.schema([pa.field(c.name, arrow_type(c), c.nullable) for c in outputs[-1]])


def _check_event_time(column: str, decoded: pa.Schema) -> None:
    kind = decoded.field(column).type
    if not pa.types.is_timestamp(kind):
        raise ConfigError(
            f"column {column} has type {type_name(kind)}, which is no moment in time",
            field="eventTime.column",
            value=column,
            expected="a column of type timestamp",
            hint=f"{{name: {column}, type: timestamp, unit: ms}} reads a number of milliseconds",
        )


def _aggregation(pipeline: Pipeline, aggregation: Aggregation, columns: pa.Schema, at: str) -> AggregationPlan:
    group, measures = [], []
    with all_errors() as part:
        for index, one in enumerate(aggregation.group_by):
            with part():
                group.append(_group(one, columns, f"{at}.groupBy[{index}]"))
        for name, measure in aggregation.measures.items():
            with part():
                measures.append(_measure(name, measure, columns, f"{at}.measures.{name}"))
    window = aggregation.window
    hop = window.hop if isinstance(window, Hopping) else window.size
    spreads = _spreads(pipeline, aggregation)
    emit = _emit(pipeline, aggregation)
    return AggregationPlan(aggregation.name, window.size, hop, tuple(group), tuple(measures), emit, spreads)


def _measure(name: str, measure: Measure, columns: pa.Schema, at: str) -> MeasurePlan:
    from tidegate.stages.measures import MEASURES  # here, because the measures are written in terms of this module

    _check_name(name, at)
    of, value_type = _argument(measure, columns, f"{at}.of")
    kind = MEASURES[measure.type]
    if (expected := kind.expects(value_type)) is not None:
        problem = (
            f"{measure.type} cannot take values of type {'nothing' if value_type is None else type_name(value_type)}"
        )
        raise ConfigError(problem, field=f"{at}.of", value=measure.of, expected=expected)
    partials, result = kind.partials(name, value_type), kind.result_type(value_type)
    return MeasurePlan(name, measure.type, of, value_type, partials, result)


def _emit(pipeline: Pipeline, aggregation: Aggregation) -> str:
    """What a worker sends to Kafka: as the sink says, else the aggregation."""
    sink = next((sink for sink in pipeline.sinks if isinstance(sink, KafkaSink)), None)
    return "final" if sink is not None and sink.mode(aggregation.emit) == "append" else aggregation.emit


def _spreads(pipeline: Pipeline, aggregation: Aggregation) -> bool:
    """Whether one group can come from several source partitions: unless the record's key, which chose the partition,
    is in it.

    A handler may write another value into the key's column, so with handlers every group may spread.
    """
    source = pipeline.source
    if source is None or source.key.column is None or len(source.topics) > 1 or pipeline.handlers:
        return True
    return source.key.column not in {group.name for group in aggregation.group_by if group.expression is None}


def _group(group: GroupBy, columns: pa.Schema, at: str) -> GroupColumn:
    _check_name(group.name, f"{at}.name")
    if group.expression is None:
        sql, kind = _single(quote(group.name), columns, f"{at}.name", _NO_DOUBLE_GROUP)
    else:
        sql, kind = _single(group.expression, columns, f"{at}.expression", _NO_DOUBLE_GROUP)
    return GroupColumn(group.name, sql, kind)


def _argument(measure: Measure, columns: pa.Schema, at: str) -> tuple[str | None, pa.DataType | None]:
    if measure.of is None:
        return None, None
    return _settled(measure.of, infer_type(measure.of, columns, field=at))


_NO_DOUBLE_GROUP = "two doubles that print alike can differ in their last bit, and would be two groups"
_NO_DOUBLE_KEY = "two doubles that print alike can differ in their last bit, and would be two keys"

_IDENTIFYING = "an expression of type string, int, bigint, decimal, boolean, date or timestamp"


def _single(expression: str, columns: pa.Schema, at: str, no_double: str) -> tuple[str, pa.DataType]:
    """The SQL and type of an expression that identifies: single values that are equal or not."""
    sql, kind = _settled(expression, infer_type(expression, columns, field=at))
    types = pa.types
    if types.is_floating(kind):
        hint = f"CAST({expression} AS DECIMAL(18, 3)), or round it to an integer"
        problem = f"a double cannot be used here: {no_double}"
        raise ConfigError(problem, field=at, value=expression, expected=_IDENTIFYING, hint=hint)
    known = (types.is_string, types.is_integer, types.is_decimal, types.is_boolean, types.is_date, types.is_timestamp)
    if not any(test(kind) for test in known):
        raise ConfigError(
            f"values of type {type_name(kind)} cannot be used here",
            field=at,
            value=expression,
            expected=_IDENTIFYING,
        )
    return sql, kind


def _settled(expression: str, kind: pa.DataType) -> tuple[str, pa.DataType]:
    """The expression cast to the schema's own types where DuckDB gives another: float to double, hugeint to decimal,
    …
    """
    types = pa.types
    settled: tuple[str, pa.DataType] | None = None
    if types.is_integer(kind) and kind not in (pa.int32(), pa.int64()):
        small = kind.bit_width < 32
        wide = ("DECIMAL(20, 0)", pa.decimal128(20, 0)) if types.is_uint64(kind) else ("BIGINT", pa.int64())
        settled = ("INTEGER", pa.int32()) if small else wide
    elif types.is_floating(kind) and kind != pa.float64():
        settled = ("DOUBLE", pa.float64())
    elif types.is_dictionary(kind):
        settled = ("VARCHAR", pa.string())
    elif types.is_timestamp(kind) and kind != pa.timestamp("us"):
        settled = ("TIMESTAMP", pa.timestamp("us"))
    elif kind == pa.decimal128(38, 0):
        settled = ("DECIMAL(38, 0)", kind)  # a hugeint has this type in Arrow, and can have a 39th digit
    if settled is None:
        return expression, kind
    return f"CAST({parenthesised(expression)} AS {settled[0]})", settled[1]


def _check_name(name: str, at: str) -> None:
    if name.startswith("_") or "__" in name:
        raise ConfigError(
            "names that start with _ or contain __ are tidegate's own",
            field=at,
            value=name,
            expected="a name of your own",
            hint="choose another name; a column can be given one: {name: other, expression: the_column}",
        )
