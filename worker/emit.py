"""What a step of a source partition means for those who read results: updates, corrections, finals, or partials.

Groups that can spread over partitions go as partials to the merge agent; the others as results to their topic, if the
pipeline has a Kafka sink.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.config.topics import result_topics
from tidegate.record import TopicPartition
from tidegate.stages.plan import AggregationPlan, Plan
from worker.effects import Effects
from worker.merge import PartialsWriter
from worker.naming import merged_aggregations
from worker.results import ResultEncoder
from worker.statedb import PartitionDB
from worker.watermarks import SourceWatermark
from worker.windows import WindowRows, WindowTable


class Emitter:
    """One source partition's results. Used by one thread at a time. `windows`: aggregation → its windows in `db`."""

    def __init__(
        self,
        plan: Plan,
        tp: TopicPartition,
        db: PartitionDB,
        windows: Mapping[str, WindowTable],
        connection: duckdb.DuckDBPyConnection,
        partition_counts: dict[str, int],
    ) -> None:
        self._plan, self._tp, self._db, self._windows = plan, tp, db, windows
        self._name = json.dumps(str(tp))
        self._topics = result_topics(plan.pipeline)
        self._results = {a.name: ResultEncoder(a, connection) for a in plan.aggregations}
        self._merged = {a.name for a in merged_aggregations(plan)}
        self._partials = PartialsWriter(plan, tp, partition_counts) if self._merged else None
        self._open_ends: dict[str, frozenset[int]] = {}

    def emit(
        self, changed: Mapping[str, WindowRows], closed_upto: int, bound: int, effects: Effects
    ) -> tuple[dict[str, int], dict[str, frozenset[int]]]:
        """Results of what changed and of what closes up to `bound` (ms); a window that closes in this very batch is emitted
        once, as final. Returns, for each aggregation, how many windows close, and the ends (ms) of those that stay open.
        """
        closing, still_open = {}, {}
        for aggregation in self._plan.aggregations:
            rows = changed.get(aggregation.name)
            ending = self._ending(aggregation, rows, closed_upto, bound)
            closing[aggregation.name] = _windows(ending.table)
            still_open[aggregation.name] = self._still_open(aggregation.name, rows, bound)
            self._send(aggregation, rows, ending, bound, effects)
        return closing, still_open

    def is_merged(self, aggregation: str) -> bool:
        """Whether its results are added up elsewhere, since groups can spread over partitions."""
        return aggregation in self._merged

    def send(self, aggregation: str, rows: WindowRows, bound: int, effects: Effects) -> None:
        """What has changed, as partials or as results; those of windows that end up to `bound` (ms) are final."""
        plan = self._windows[aggregation].plan
        self._send(plan, rows, WindowRows([], [], rows.table.slice(0, 0)), bound, effects)

    def _send(
        self, aggregation: AggregationPlan, rows: WindowRows | None, ending: WindowRows, bound: int, effects: Effects
    ) -> None:
        topic = self._topics.get(aggregation.name)
        if aggregation.name in self._merged:
            if rows is not None and self._partials is not None:
                self._partials.write(aggregation, rows, effects)
        elif topic is not None:
            self._send_results(topic, aggregation, rows, ending, bound, effects)

    def forget_open_ends(self) -> None:
        """The state's windows were changed by something else than a batch: look anew which are open."""
        self._open_ends.clear()

    def last_end(self, closed_upto: int) -> int:
        """The end (ms) of the last window that is open; `closed_upto` when none is."""
        for name, table in self._windows.items():
            self._open_ends.setdefault(name, table.open_ends(self._db, closed_upto))
        return max((end for ends in self._open_ends.values() for end in ends), default=closed_upto)

    def _still_open(self, name: str, rows: WindowRows | None, bound: int) -> frozenset[int]:
        """Ends of the windows that are open after this step: those that were, those that opened, less those that closed."""
        if name not in self._open_ends:
            self._open_ends[name] = self._windows[name].open_ends(self._db, bound)
        opened = pc.unique(rows.table["window_end"]).to_pylist() if rows is not None else []
        self._open_ends[name] = frozenset(end for end in {*self._open_ends[name], *opened} if end > bound)
        return self._open_ends[name]

    def _ending(self, aggregation: AggregationPlan, rows: WindowRows | None, after: int, bound: int) -> WindowRows:
        """The rows that close: those of the local state, with this batch's own changes laid over them."""
        ending = self._windows[aggregation.name].ending(self._db, after, bound)
        if rows is None:
            return ending
        ends = rows.table["window_end"].to_numpy()
        fresh = np.flatnonzero((ends > after) & (ends <= bound))
        if not len(fresh):
            return ending
        new = {rows.keys[i] for i in fresh}
        old = [i for i, key in enumerate(ending.keys) if key not in new]
        table = pa.concat_tables([_take(ending.table, old), _take(rows.table, fresh).select(ending.table.column_names)])
        return WindowRows([*(ending.keys[i] for i in old), *(rows.keys[i] for i in fresh)], [], table)

    def _send_results(
        self,
        topic: str,
        aggregation: AggregationPlan,
        rows: WindowRows | None,
        ending: WindowRows,
        bound: int,
        effects: Effects,
    ) -> None:
        tables = [(ending.table, True)]
        if rows is not None:
            ends, closing = rows.table["window_end"].to_numpy(), set(ending.keys)
            other = [i for i, key in enumerate(rows.keys) if key not in closing]
            corrections = [i for i in other if ends[i] <= bound]
            updates = [i for i in other if ends[i] > bound] if aggregation.emit == "updates" else []
            tables += [(_take(rows.table, corrections), True), (_take(rows.table, updates), False)]
        for table, final in tables:
            upto = [f"{{{self._name}: {offset}}}" for offset in table["upto"].to_pylist()]
            encoded = self._results[aggregation.name].encode(table, upto, pa.array([final] * table.num_rows))
            effects.send(topic, self._tp.partition, *encoded)

    def mark(self, row: SourceWatermark, effects: Effects) -> None:
        """How far the partition is, for the merge agent: behind all that it was sent."""
        if self._partials is not None:
            self._partials.mark(row, effects)


def _take(table: pa.Table, rows: Sequence[int] | npt.NDArray[np.int64]) -> pa.Table:
    return table.take(pa.array(rows, pa.int64()))


def take(rows: WindowRows, numbers: npt.NDArray[np.int64]) -> WindowRows:
    """Some of the rows."""
    values = [rows.values[i] for i in numbers]
    return WindowRows([rows.keys[i] for i in numbers], values, _take(rows.table, numbers))


def _windows(table: pa.Table) -> int:
    return int(pc.count_distinct(table["window_end"]).as_py()) if table.num_rows else 0
