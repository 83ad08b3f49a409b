"""Totals of groups that spread over source partitions.

Each source partition writes its partials, keyed by group, to `{pipelineId}..partials`, within its own transaction. The
merge agent keeps the newest partial of each source partition (by `upto`) and emits their sum: a repeat changes nothing.
After its partials each transaction writes the source partition's watermark to every partition of the topic, so the order
of the log says when a window is final.

The topic is a table of what is still kept: when the merge agent forgets a window it deletes the window's partials from the
topic, in the same transaction. (Were it the source's side that deletes, compaction could take a partial before the merge
agent has read it.)
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import structlog

from tidegate.config.topics import partials_topic, result_topics
from tidegate.record import TopicPartition
from tidegate.rowkeys import MERGE, aggregation_prefix, decode_keys, merge_partition, order_preserving
from tidegate.stages.aggregate import Merger
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.stages.sql import connect
from tidegate.store.rows import decode_state, encode_state
from tidegate.store.watermark import EVERYTHING
from worker import keys
from worker.effects import Effects
from worker.naming import merged_aggregations
from worker.results import ResultEncoder
from worker.rowcodec import RowCodec
from worker.statedb import PartitionDB
from worker.watermarks import SourceWatermark, decode_watermark, encode_watermark, watermark_key, watermark_of_all
from worker.windows import BEGINNING, WindowRows, by_row, partial_columns

log = structlog.get_logger(__name__)
_MARK = b"\x00"  # first byte of a watermark's key; an aggregation's key starts with MERGE
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(dict[str, list[Any]]).decode


class PartialsWriter:
    """The source side: what a source partition's batch sends to the partials topic."""

    def __init__(self, plan: Plan, tp: TopicPartition, partition_counts: dict[str, int]) -> None:
        self._topic = partials_topic(plan.pipeline)
        self._partitions = partition_counts[self._topic]
        self._source = str(tp).encode()

    def write(self, aggregation: AggregationPlan, rows: WindowRows, effects: Effects) -> None:
        """One record per changed window and group; the key ends with the source, so that compaction keeps one of each."""
        per_partition: dict[int, tuple[list[bytes | None], list[bytes | None]]] = defaultdict(lambda: ([], []))
        prefix = aggregation_prefix(MERGE, aggregation.name)
        for key, value in zip(rows.keys, rows.values, strict=True):
            group = prefix + key[5:]
            partition_keys, values = per_partition[merge_partition(group, self._partitions)]
            partition_keys.append(_pack((group, self._source)))
            values.append(value)
        for partition, (partition_keys, values) in per_partition.items():
            effects.send(self._topic, partition, partition_keys, values)

    def mark(self, row: SourceWatermark, effects: Effects) -> None:
        for partition in range(self._partitions):
            effects.send(self._topic, partition, [_MARK + watermark_key(row.tp)], [encode_watermark(row)])


@dataclass(frozen=True, slots=True)
class MergeStep:
    """One batch of partials, ready to be committed. `expired`: aggregation → totals that are not given any more."""

    state: PartitionState
    closed_upto: int
    effects: Effects
    expired: dict[str, int]


class MergeStages:
    """The merge side: one partition of the partials topic over its local state. Used by one thread at a time."""

    def __init__(
        self, plan: Plan, tp: TopicPartition, db: PartitionDB, sources: Callable[[], list[TopicPartition]]
    ) -> None:
        self.tp, self.db, self._sources = tp, db, sources
        self._plan = plan
        connection = connect()
        self._aggregations = {
            aggregation_prefix(MERGE, a.name): MergedAggregation(a, plan, db, connection)
            for a in merged_aggregations(plan)
        }
        self._watermarks: dict[TopicPartition, SourceWatermark] = {}

    def load(self) -> tuple[PartitionState, int]:
        """The partition row, the closing bound; the sources' watermarks are loaded beside them."""
        row, closed = self.db.get([keys.PARTITION, keys.CLOSED])
        for _, value in self.db.scan(keys.SOURCE, keys.SOURCE + b"\xff"):
            mark = decode_watermark(value)
            self._watermarks[mark.tp] = mark
        state = decode_state(row) if row is not None else PartitionState()
        return state, keys.unpack_int(closed) if closed is not None else BEGINNING

    def batch(self, records: Sequence[Any], state: PartitionState, closed_upto: int) -> MergeStep:
        """Merge the records after `state.upto`."""
        effects = Effects()
        partials: dict[bytes, dict[bytes, dict[str, bytes]]] = defaultdict(lambda: defaultdict(dict))
        fresh = [r for r in records if r.offset > state.upto]
        for record in fresh:
            if record.key[:1] == _MARK:
                mark = decode_watermark(record.value)
                self._watermarks[mark.tp] = mark
                effects.put([keys.SOURCE + record.key[1:]], [record.value])
            elif record.value is not None:
                group, source = msgspec.msgpack.decode(record.key, type=tuple[bytes, bytes])
                partials[group[:5]][group][source.decode()] = record.value
        bound = self._bound(partials, closed_upto)
        expired = {
            aggregation.name: aggregation.merge(
                partials.get(prefix, {}), closed_upto, bound, self.tp.partition, effects
            )
            for prefix, aggregation in self._aggregations.items()
        }
        after = replace(state, upto=fresh[-1].offset if fresh else state.upto)
        effects.put([keys.CLOSED, keys.PARTITION], [keys.pack_int(bound), encode_state(after)])
        return MergeStep(after, bound, effects, expired)

    def _bound(self, partials: Mapping[bytes, Iterable[bytes]], closed_upto: int) -> int:
        """Up to where windows are final: the pipeline's watermark; when every source is idle, all windows that there are."""
        watermark = watermark_of_all(self._watermarks, self._sources())
        if watermark is None:
            return closed_upto
        if watermark == EVERYTHING:
            watermark = max((a.last_end(partials.get(p, {}), closed_upto) for p, a in self._aggregations.items()))
        return max(closed_upto, watermark)


class MergedAggregation:
    """One aggregation in one partition of the partials topic: per window and group, the newest partial of each source."""

    def __init__(self, plan: AggregationPlan, pipeline: Plan, db: PartitionDB, connection: Any) -> None:
        self._plan, self._db, self._connection = plan, db, connection
        self._prefix = aggregation_prefix(MERGE, plan.name)
        self._group = [(column.name, column.type) for column in plan.group]
        self._codec = RowCodec(partial_columns(plan))
        self._merger = Merger(by_row(plan), connection)
        self._results = ResultEncoder(plan, connection)
        self.name = plan.name
        self._topic, self._partials = result_topics(pipeline.pipeline)[plan.name], partials_topic(pipeline.pipeline)
        event_time = pipeline.pipeline.event_time
        self._kept = event_time.allowed_lateness + event_time.retention if event_time else 0

    def merge(
        self, partials: dict[bytes, dict[str, bytes]], closed_upto: int, bound: int, partition: int, effects: Effects
    ) -> int:
        """Lay the new partials over the known ones; emit the totals of what changed and of what closes.

        Returns how many totals came too late to be given.
        """
        kept, expired = self._sorted_out(partials, closed_upto)
        changed = self._overlay(kept)
        effects.put(list(changed), [_pack(row) for row in changed.values()])
        gone = self._forgotten(changed, closed_upto, bound)
        effects.deletes += gone
        forgotten = [_pack((key, source.encode())) for rows in (gone, expired) for key in rows for source in rows[key]]
        effects.send(self._partials, partition, forgotten, [None] * len(forgotten))
        ending = {key: row for key, row in self._ending(closed_upto, bound).items() if key not in changed}
        final = {key: key_end(key) <= bound for key in changed}
        emitted = {k: row for k, row in changed.items() if self._plan.emit == "updates" or final[k]} | ending
        if not emitted:
            return len(expired)
        table = self._totals(list(emitted), list(emitted.values()))
        upto = [json.dumps({source: cell[0] for source, cell in row.items()}) for row in emitted.values()]
        finals = pa.array([final.get(key, True) for key in emitted])
        effects.send(self._topic, partition, *self._results.encode(table, upto, finals))
        return len(expired)

    def _sorted_out(
        self, partials: dict[bytes, dict[str, bytes]], closed_upto: int
    ) -> tuple[dict[bytes, dict[str, bytes]], dict[bytes, dict[str, bytes]]]:
        """The partials of windows that are still kept, and the others.

        A partition that was idle can wake up with older ones. What the other partitions had in those windows is
        forgotten, so no total is emitted: it would be too small. The store's results have them all the same.
        """
        expiry = self._expiry(closed_upto)
        expired = {key: row for key, row in partials.items() if key_end(key) <= expiry}
        if not expired:
            return partials, {}
        log.warning("results.expired", aggregation=self.name, totals=len(expired))
        return {key: row for key, row in partials.items() if key not in expired}, expired

    def last_end(self, new: Iterable[bytes], closed_upto: int) -> int:
        """The end (ms) of the last window among the known rows and the keys `new`; `closed_upto` when none ends later."""
        last, limit = closed_upto, self._prefix + b"\xff" * 9
        while True:
            start = self._prefix + order_preserving(np.array([last + 1]))
            found = next(iter(self._db.scan(start, limit)), None)
            if found is None:
                return max([last, *map(key_end, new)])
            last = key_end(found[0])

    def _forgotten(
        self, changed: dict[bytes, dict[str, list[Any]]], closed_upto: int, bound: int
    ) -> dict[bytes, dict[str, list[Any]]]:
        """The rows of windows that ended `allowedLateness` + `retention` before the closing bound."""
        expiry = self._expiry(bound)
        known = self._ending(self._expiry(closed_upto), expiry)
        return known | {key: row for key, row in changed.items() if key_end(key) <= expiry}

    def _expiry(self, closed_upto: int) -> int:
        return max(BEGINNING, closed_upto - self._kept)

    def _overlay(self, partials: dict[bytes, dict[str, bytes]]) -> dict[bytes, dict[str, list[Any]]]:
        """Rows are source → [upto, revision, partial]. An older partial than the known one changes nothing."""
        wanted = list(partials)
        known = self._db.get(wanted)
        changed: dict[bytes, dict[str, list[Any]]] = {}
        numbers = self._codec.decode([partial for key in wanted for partial in partials[key].values()])
        newest = zip(numbers["upto"].to_pylist(), numbers["revision"].to_pylist(), strict=True)
        for key, value in zip(wanted, known, strict=True):
            row = {} if value is None else _unpack(value)
            for source, partial in partials[key].items():
                upto, revision = next(newest)
                if source not in row or row[source][0] < upto or row[source][1] < revision:
                    row[source] = [upto, revision, partial]
                    changed[key] = row
        return changed

    def _ending(self, after: int, bound: int) -> dict[bytes, dict[str, list[Any]]]:
        if bound <= after:
            return {}
        start = self._prefix + order_preserving(np.array([after + 1]))
        end = self._prefix + order_preserving(np.array([bound])) + b"\xff"
        return {key: _unpack(value) for key, value in self._db.scan(start, end)}

    def _totals(self, row_keys: list[bytes], rows: list[dict[str, list[Any]]]) -> pa.Table:
        """One row per key: the sources' partials added up."""
        cells = [(index, cell[2]) for index, row in enumerate(rows) for cell in row.values()]
        partials = self._codec.decode([cell for _, cell in cells])
        zero = pa.array(np.zeros(len(cells), dtype=np.int64))
        columns = {name: partials[name] for name in partials.column_names if name != "revision"}
        numbered = pa.table(
            {"window_start": zero, "window_end": zero, "_row": pa.array([i for i, _ in cells]), **columns}
        )
        merged = self._merger.merge([numbered]).sort_by("_row")
        ends, groups = decode_keys(row_keys, len(self._prefix), self._group)
        identity: dict[str, Any] = {"window_start": pa.array(ends.to_numpy() - self._plan.size), "window_end": ends}
        identity.update({name: column for (name, _), column in zip(self._group, groups, strict=True)})
        kept = {n: merged[n] for n in merged.column_names if n not in ("_row", "window_start", "window_end")}
        revisions = [sum(cell[1] for cell in row.values()) for row in rows]
        return pa.table({**identity, **kept, "revision": pa.array(revisions, pa.int64())})


def key_end(key: bytes) -> int:
    """The window end (ms) in a state row's key."""
    return int.from_bytes(key[5:13], "big") - (1 << 63)
