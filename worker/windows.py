"""The windows of one aggregation in one partition: deltas in, new totals out; and the rows of windows that close."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.errors import ConfigError
from tidegate.record import TopicPartition
from tidegate.rowkeys import aggregation_prefix, decode_keys, encode_keys, order_preserving
from tidegate.stages.aggregate import Merger, merge_partials
from tidegate.stages.plan import AggregationPlan, GroupColumn
from worker.keys import LAYOUT, WINDOW
from worker.rowcodec import RowCodec
from worker.statedb import PartitionDB

# Where no window ends: the open end of a range of window ends.
FOREVER = (1 << 63) - 1
BEGINNING = -(1 << 63)
_TOTALS = (("records", pa.int64()), ("upto", pa.int64()), ("revision", pa.int64()))


def partial_columns(plan: AggregationPlan) -> list[tuple[str, pa.DataType]]:
    """The columns of a state row's value."""
    return [*((partial.name, partial.type) for partial in plan.partials), *_TOTALS]


def by_row(plan: AggregationPlan) -> AggregationPlan:
    """The same measures grouped by a row number: merging is one integer GROUP BY, whatever the group is."""
    return replace(plan, group=(GroupColumn("_row", '"_row"', pa.int64()),))


@dataclass(frozen=True, slots=True)
class WindowRows:
    """Rows of one aggregation: `table` has window_start, window_end, the group, the partials, records, upto, revision."""

    keys: list[bytes]
    values: list[bytes]
    table: pa.Table


class WindowTable:
    """Reads and merges; writes nothing: the caller writes the rows when the transaction has been committed."""

    def __init__(self, plan: AggregationPlan, connection: duckdb.DuckDBPyConnection) -> None:
        self.plan = plan
        self._connection = connection
        self._group = [(column.name, column.type) for column in plan.group]
        self._codec = RowCodec(partial_columns(plan))
        self._prefix = aggregation_prefix(WINDOW, plan.name)
        self._merger = Merger(by_row(plan), connection)

    @property
    def layout(self) -> bytes:
        """A digest that changes when rows written before could not be read as rows of this plan."""
        shape = (self.plan.size, self.plan.hop, [(n, str(t)) for n, t in self._group])
        columns = [(name, str(kind)) for name, kind in self._codec.columns]
        return hashlib.sha256(repr((shape, columns)).encode()).digest()[:16]

    def apply(self, db: PartitionDB, deltas: pa.Table) -> WindowRows:
        """The new totals of every window and group in `deltas` (one row each).

        The revision is higher by one for each lane that the group has in `deltas`: the store counts so, whose revision is the
        sum over lanes, and whoever goes on from there must not be behind what was sent.
        """
        deltas, keys, changes = self._one_row_per_group(deltas)
        merged = self._merge(deltas, db.get(keys), changes)
        return WindowRows(keys, self._codec.encode(merged), merged)

    def reloaded(self, db: PartitionDB, totals: pa.Table) -> WindowRows:
        """Rows to replace those of the state: `totals` as the store has them, none with an older revision than it had."""
        row_keys = self._keys(totals)
        revisions = totals["revision"].to_numpy().copy()
        old = db.get(row_keys)
        known = [index for index, value in enumerate(old) if value is not None]
        if known:
            before = self._codec.decode([value for value in old if value is not None])["revision"].to_numpy()
            revisions[known] = np.maximum(revisions[known], before + 1)
        index = totals.schema.get_field_index("revision")
        table = totals.set_column(index, "revision", pa.array(revisions))
        return WindowRows(row_keys, self._codec.encode(table), table)

    def ending(self, db: PartitionDB, after: int, upto: int) -> WindowRows:
        """All rows whose window ends after `after` and not later than `upto` (ms)."""
        found = list(self._range(db, after, upto))
        keys, values = [key for key, _ in found], [value for _, value in found]
        return WindowRows(keys, values, self._table(keys, values))

    def expired(self, db: PartitionDB, after: int, upto: int) -> list[bytes]:
        """The keys of all rows whose window ends after `after` and not later than `upto` (ms)."""
        return [key for key, _ in self._range(db, after, upto)]

    def open_ends(self, db: PartitionDB, after: int) -> frozenset[int]:
        """The ends (ms) of all windows that end after `after`: one look per window, however many groups it has."""
        ends: set[int] = set()
        while (found := next(self._range(db, after, FOREVER), None)) is not None:
            after = int.from_bytes(found[0][len(self._prefix) : len(self._prefix) + 8], "big") - (1 << 63)
            ends.add(after)
        return frozenset(ends)

    def _range(self, db: PartitionDB, after: int, upto: int) -> Iterator[tuple[bytes, bytes]]:
        if upto <= after:
            return iter(())
        start = self._prefix + order_preserving(np.array([after + 1]))
        return db.scan(start, self._prefix + order_preserving(np.array([upto])) + b"\xff")

    def _keys(self, rows: pa.Table) -> list[bytes]:
        return encode_keys(self._prefix, rows["window_end"], [rows[name] for name, _ in self._group])

    def _one_row_per_group(self, deltas: pa.Table) -> tuple[pa.Table, list[bytes], npt.NDArray[np.int64]]:
        """Lanes are the store's matter: a worker's own totals are over all lanes. The rows, their keys, and how many lanes
        each had."""
        lanes, deltas = pc.count_distinct(deltas["lane"]).as_py(), deltas.drop_columns(["lane"])
        keys = self._keys(deltas)
        if lanes <= 1:
            return deltas, keys, np.ones(len(keys), dtype=np.int64)
        had = Counter(keys)
        deltas = merge_partials(self.plan, [deltas], self._connection)
        keys = self._keys(deltas)
        return deltas, keys, np.array([had[key] for key in keys], dtype=np.int64)

    def _merge(self, deltas: pa.Table, old: Sequence[bytes | None], changes: npt.NDArray[np.int64]) -> pa.Table:
        known = [index for index, value in enumerate(old) if value is not None]
        revisions = np.zeros(deltas.num_rows, dtype=np.int64)
        if not known:
            return deltas.append_column("revision", pa.array(changes))
        before = self._codec.decode([value for value in old if value is not None])
        revisions[known] = before["revision"].to_numpy()
        totals = [self._numbered(deltas, range(deltas.num_rows)), self._numbered(before, known)]
        merged = self._merger.merge(totals).sort_by("_row")
        columns = {
            name: merged[name] for name in merged.column_names if name not in ("_row", "window_start", "window_end")
        }
        identity = {name: deltas[name] for name in ("window_start", "window_end", *(name for name, _ in self._group))}
        return pa.table({**identity, **columns, "revision": pa.array(revisions + changes)})

    def _numbered(self, rows: pa.Table, numbers: Sequence[int]) -> pa.Table:
        zero = pa.array(np.zeros(rows.num_rows, dtype=np.int64))
        keep = [*(p.name for p in self.plan.partials), "records", "upto"]
        return pa.table(
            {
                "window_start": zero,
                "window_end": zero,
                "_row": pa.array(numbers, pa.int64()),
                **{n: rows[n] for n in keep},
            }
        )

    def _table(self, keys: Sequence[bytes], values: Sequence[bytes]) -> pa.Table:
        ends, groups = decode_keys(keys, len(self._prefix), self._group)
        starts = pc.subtract(ends, pa.scalar(self.plan.size, pa.int64()))
        table = self._codec.decode(values)
        identity = {"window_start": starts, "window_end": ends}
        identity.update({name: column for (name, _), column in zip(self._group, groups, strict=True)})
        return pa.table({**identity, **{name: table[name] for name in table.column_names}})


def new_layouts(db: PartitionDB, tp: TopicPartition, layouts: Mapping[str, bytes]) -> list[tuple[bytes, bytes]]:
    """Rows to write for aggregations that the state does not know yet. `layouts`: aggregation → digest of its rows' layout.

    Raises ConfigError when rows of the state could not be read any more.
    """
    wanted = {name: aggregation_prefix(LAYOUT, name) for name in layouts}
    found = dict(zip(layouts, db.get(list(wanted.values())), strict=True))
    for name, before in found.items():
        if before is not None and before != layouts[name]:
            raise ConfigError(
                f"the state of {tp} was written with other measures, groups or windows",
                field=f"aggregations ({name})",
                hint="give the changed aggregation a new name (the old one's results stay), or take a new pipelineId",
            )
    return [(wanted[name], layouts[name]) for name, before in found.items() if before is None]
