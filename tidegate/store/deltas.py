"""Batches' deltas as they are staged: exactly the plan's columns, and of which source partition each row is."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tidegate.record import Lane, TopicPartition
from tidegate.store.base import Amendment, StoreBatch
from tidegate.store.tables import WINDOW, AggregationTables

NEW = "_new"  # a column beside those that are staged


def sourced_deltas(batches: Sequence[StoreBatch | Amendment], tables: AggregationTables) -> pa.Table | None:
    """All the batches' deltas of one aggregation, with the columns `topic`, `partition` and, of rows to which the store surely
    has nothing to add them to, NEW; None when there are none."""
    parts = [
        _of_source(_marked(_typed(deltas, tables), batch, tables.plan.name), batch.tp)
        for batch in batches
        if (deltas := batch.deltas.get(tables.plan.name)) is not None and deltas.num_rows
    ]
    return pa.concat_tables(parts) if parts else None


def _typed(deltas: pa.Table, tables: AggregationTables) -> pa.Table:
    """The deltas with exactly the plan's columns and types, whatever an engine gave (large or dictionary text)."""
    plan = tables.plan
    fields = [(name, pa.int64()) for name in WINDOW] + [(column.name, column.type) for column in plan.group]
    fields += [("lane", pa.string()), *((partial.name, partial.type) for partial in plan.partials)]
    fields += [("records", pa.int64()), ("upto", pa.int64())]
    return deltas.select([name for name, _ in fields]).cast(pa.schema(fields))


def _marked(deltas: pa.Table, batch: StoreBatch | Amendment, name: str) -> pa.Table:
    """With the column NEW."""
    if isinstance(batch, Amendment) or batch.new_after is None:
        return deltas.append_column(NEW, pa.repeat(pa.scalar(False), deltas.num_rows))
    later = pc.greater(deltas.column("window_start"), batch.new_after)
    new = pc.and_(later, pc.equal(deltas.column("lane"), Lane.LIVE.value))
    if (there := batch.perhaps_there.get(name)) is not None:
        new = pc.and_not(new, there)
    return deltas.append_column(NEW, new)


def _of_source(deltas: pa.Table, tp: TopicPartition) -> pa.Table:
    rows = deltas.num_rows
    deltas = deltas.append_column("topic", pa.repeat(pa.scalar(tp.topic, pa.string()), rows))
    return deltas.append_column("partition", pa.repeat(pa.scalar(tp.partition, pa.int32()), rows))
