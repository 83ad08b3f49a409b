"""Records for the store's suite: a plan with every measure, a batch's deltas, and the truth in plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from tidegate.config.pipeline import Pipeline
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.stages.batch import LATE_WINDOWS_SCHEMA, PartitionState
from tidegate.stages.measures import MEASURES
from tidegate.stages.measures.approx_distinct import sketch
from tidegate.stages.plan import AggregationPlan, GroupColumn, MeasurePlan, Plan
from tidegate.store.base import StoreBatch, new_after

SIZE = 60_000
START = 1_356_998_400_000  # 2013-01-01T00:00:00Z, the start of a window
DELAY = 10_000


@dataclass(frozen=True, slots=True)
class Flight:
    """One record with a value for every kind of column."""

    offset: int
    time: int = START
    origin: str | None = "EWR"
    day: date | None = None
    delay: int | None = 1
    fare: Decimal | None = Decimal("1.10")
    miles: float | None = 1.5
    tail: str | None = "N1"
    on_time: bool | None = True
    landed: datetime | None = datetime(2013, 1, 1)  # noqa: DTZ001 (timestamps are naive, always UTC)
    digest: bytes | None = b"\x00\xff"
    lane: str = "live"


# measure → (kind, field of Flight, Arrow type)
MEASURED: dict[str, tuple[str, str | None, pa.DataType | None]] = {
    "flights": ("count", None, None),
    "delays": ("count", "delay", pa.int64()),
    "delay_sum": ("sum", "delay", pa.int64()),
    "fare_sum": ("sum", "fare", pa.decimal128(10, 2)),
    "miles_sum": ("sum", "miles", pa.float64()),
    "delay_avg": ("avg", "delay", pa.int64()),
    "fare_avg": ("avg", "fare", pa.decimal128(10, 2)),
    "miles_avg": ("avg", "miles", pa.float64()),
    "delay_min": ("min", "delay", pa.int64()),
    "fare_max": ("max", "fare", pa.decimal128(10, 2)),
    "tail_min": ("min", "tail", pa.string()),
    "tail_max": ("max", "tail", pa.string()),
    "on_time_min": ("min", "on_time", pa.bool_()),
    "on_time_max": ("max", "on_time", pa.bool_()),
    "landed_max": ("max", "landed", pa.timestamp("us")),
    "day_min": ("min", "day", pa.date32()),
    "miles_max": ("max", "miles", pa.float64()),
    "tails": ("approxDistinct", "tail", pa.string()),
    "first_tail": ("first", "tail", pa.string()),
    "last_fare": ("last", "fare", pa.decimal128(10, 2)),
    "last_on_time": ("last", "on_time", pa.bool_()),
    "first_digest": ("first", "digest", pa.binary()),
}
GROUPS: dict[str, dict[str, pa.DataType]] = {
    "per_origin": {"origin": pa.string()},
    "per_origin_and_day": {"origin": pa.string(), "day": pa.date32()},
    "overall": {},
}


def measure(name: str) -> MeasurePlan:
    kind, field, value_type = MEASURED[name]
    of = MEASURES[kind]
    return MeasurePlan(name, kind, field, value_type, of.partials(name, value_type), of.result_type(value_type))


def flights_plan(
    pipeline_id: str = "flights",
    measures: Iterable[str] = MEASURED,
    groups: Iterable[str] = GROUPS,
    horizon: int | None = None,
) -> Plan:
    """All measures for all groups, unless told otherwise; windows of a minute. `horizon` (ms): of dedupe."""
    pipeline = Pipeline.model_validate(
        {
            "pipelineId": pipeline_id,
            "schema": [{"name": "time", "type": "timestamp", "unit": "ms"}],
            "eventTime": {"column": "time", "delay": DELAY},
            **({"dedupe": {"key": "time", "horizon": horizon}} if horizon is not None else {}),
        }
    )
    measured = tuple(measure(name) for name in measures)
    aggregations = tuple(
        AggregationPlan(
            name,
            SIZE,
            SIZE,
            tuple(GroupColumn(column, f'"{column}"', type_) for column, type_ in GROUPS[name].items()),
            measured,
            "updates",
            name == "overall",
        )
        for name in groups
    )
    return Plan(pipeline, pa.schema([]), pa.schema([]), aggregations)


def window_of(flight: Flight) -> int:
    return flight.time - flight.time % SIZE


def deltas(plan: Plan, flights: Sequence[Flight]) -> dict[str, pa.Table]:
    """What the stages would give for one batch."""
    return {aggregation.name: _delta(aggregation, flights) for aggregation in plan.aggregations}


def _delta(plan: AggregationPlan, flights: Sequence[Flight]) -> pa.Table:
    groups: dict[tuple[Any, ...], list[Flight]] = {}
    for flight in flights:
        key = (window_of(flight), *(getattr(flight, column.name) for column in plan.group), flight.lane)
        groups.setdefault(key, []).append(flight)
    columns: dict[str, list[Any]] = {"window_start": [], "window_end": [], "lane": [], "records": [], "upto": []}
    types: dict[str, pa.DataType] = dict.fromkeys(("window_start", "window_end", "records", "upto"), pa.int64())
    types |= {"lane": pa.string()} | {column.name: column.type for column in plan.group}
    types |= {partial.name: partial.type for partial in plan.partials}
    for (start, *group, lane), members in groups.items():
        row = {"window_start": start, "window_end": start + plan.size, "lane": lane}
        row |= {"records": len(members), "upto": max(member.offset for member in members)}
        row |= {column.name: value for column, value in zip(plan.group, group, strict=True)}
        for one in plan.measures:
            row |= _partial(one, members)
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return pa.table({name: pa.array(columns.get(name, []), type_) for name, type_ in types.items()})


def _partial(plan: MeasurePlan, flights: Sequence[Flight]) -> dict[str, Any]:
    given = [(f, getattr(f, plan.of)) for f in flights if getattr(f, plan.of) is not None] if plan.of else []
    values = [value for _, value in given]
    if plan.kind == "count":
        return {f"{plan.name}__n": len(values) if plan.of else len(flights)}
    if plan.kind in ("sum", "avg"):
        return {f"{plan.name}__sum": sum(values) if values else None, f"{plan.name}__n": len(values)}
    if plan.kind in ("min", "max"):
        return {f"{plan.name}__{plan.kind}": _extreme(plan.kind, values)}
    if plan.kind == "approxDistinct":
        return {f"{plan.name}__sketch": sketch(map(str, values))}
    chosen = _end(plan.kind, given)
    found = (chosen[1], chosen[0].time, chosen[0].offset) if chosen else (None, None, None)
    return {f"{plan.name}__{part}": value for part, value in zip((plan.kind, "at", "offset"), found, strict=True)}


def _extreme(kind: str, values: list[Any]) -> Any:
    """Text by its bytes, which is the order of its code points."""
    return (min if kind == "min" else max)(values) if values else None


def _end(kind: str, given: list[tuple[Flight, Any]]) -> tuple[Flight, Any] | None:
    order = [((f.time, f.offset, value), f, value) for f, value in given]
    if not order:
        return None
    chosen = (min if kind == "first" else max)(order, key=lambda one: one[0])
    return chosen[1], chosen[2]


def truth(plan: AggregationPlan, flights: Iterable[Flight]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """(window start, group…) → measure → result, from all records at once."""
    groups: dict[tuple[Any, ...], list[Flight]] = {}
    for flight in flights:
        key = (window_of(flight), *(getattr(flight, column.name) for column in plan.group))
        groups.setdefault(key, []).append(flight)
    return {key: {one.name: _result(one, members) for one in plan.measures} for key, members in groups.items()}


def _result(plan: MeasurePlan, flights: list[Flight]) -> Any:
    given = [(f, getattr(f, plan.of)) for f in flights if getattr(f, plan.of) is not None] if plan.of else []
    values = [value for _, value in given]
    if plan.kind == "count":
        return len(values) if plan.of else len(flights)
    if plan.kind == "sum":
        return sum(values) if values else None
    if plan.kind == "avg":
        return float(sum(values)) / len(values) if values else None
    if plan.kind == "approxDistinct":
        return len(set(values))
    if plan.kind in ("first", "last"):
        chosen = _end(plan.kind, given)
        return chosen[1] if chosen else None
    return _extreme(plan.kind, values)


def batch_of(
    plan: Plan,
    tp: TopicPartition,
    flights: Sequence[Flight],
    *,
    before: PartitionState | None = None,
    epoch: int = 1,
    late: Sequence[tuple[str, int, int]] = (),
) -> StoreBatch:
    """A batch of accepted records. `late`: (aggregation, window start, missing)."""
    before = before or PartitionState()
    moved = Ledger(read=len(flights), accepted=len(flights))
    times = [flight.time for flight in flights] + ([before.high_water] if before.high_water is not None else [])
    state = PartitionState(flights[-1].offset, max(times), max(times), before.ledger + moved)
    rows = [dict(zip(LATE_WINDOWS_SCHEMA.names, (a, s, s + SIZE, n), strict=True)) for a, s, n in late]
    late_windows = pa.Table.from_pylist(rows, LATE_WINDOWS_SCHEMA)
    return StoreBatch(tp, epoch, before.upto, state, deltas(plan, flights), late_windows, new_after=new_after(before))
