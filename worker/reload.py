"""A partition's state from the store: what another engine has applied there is taken over, not read from the log again.

The other engine has written its dead letters and late records before the store, so nothing of it is missing on Kafka but the
state and the results. Whatever is taken replaces what the state has, so a reload that is killed is simply made again.

1. windows    those with records that the state has not applied: into the state, and as results or partials to Kafka
2. late       how many records each window misses
3. dedupe     the keys that were seen
4. the rest   windows that close by it, those that are forgotten, and the partition row, which makes it true

Steps 1 to 3 are transactions of their own, so that memory does not grow with the backlog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tidegate.config.topics import result_topics
from tidegate.rowkeys import aggregation_prefix, order_preserving
from tidegate.stages.batch import PartitionState
from tidegate.store.base import Store
from worker import keys
from worker.effects import Effects
from worker.emit import take
from worker.source import SourceStages, Step
from worker.windows import BEGINNING


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store has of one partition: its `state`, and in chunks the windows of each aggregation, the late windows and
    dedupe's memory."""

    state: PartitionState
    windows: Mapping[str, Sequence[pa.Table]]
    late: pa.Table
    seen: Sequence[pa.Table]

    @property
    def rows(self) -> int:
        """How many windows and groups there are."""
        return sum(table.num_rows for tables in self.windows.values() for table in tables)


def read_stored(store: Store, stages: SourceStages, state: PartitionState, applied: int) -> Stored:
    """What the store has at `state` that is new to one who has applied all up to `applied`. Raises StoreUnavailable."""
    plan, tp, expiry = stages.plan, stages.tp, stages.expiry(state)
    # Results on Kafka are of all windows; the state has those that something may still change.
    after = None if result_topics(plan.pipeline) or expiry == BEGINNING else expiry
    windows = {
        a.name: list(store.windows(tp, a.name, open_after=after, changed_after=applied)) for a in plan.aggregations
    }
    return Stored(state, windows, store.late(tp), list(store.remembered(tp)) if plan.pipeline.dedupe else [])


def reload_steps(stages: SourceStages, stored: Stored, state: PartitionState, closed_upto: int) -> Iterator[Step]:
    """One after the other to be committed, each before the next is asked for; the last has the state."""
    bound = stages.own_watermark(stored.state, closed_upto)
    for name, tables in stored.windows.items():
        for table in tables:
            yield _windows(stages, name, table, Step(state, Effects(), closed_upto), bound, stages.expiry(state))
    yield _late(stored.late, Step(state, Effects(), closed_upto))
    for seen in stored.seen:
        step = Step(state, Effects(), closed_upto)
        stages.remember(list(zip(seen["key"].to_pylist(), seen["at"].to_pylist(), strict=True)), step.effects)
        yield step
    stages.emitter.forget_open_ends()
    last = stages.closing(stored.state, closed_upto, bound)
    stages.drop_expired(state, {}, last)
    stages.forget_seen(stored.state, last.effects)
    yield last


def _windows(stages: SourceStages, name: str, table: pa.Table, step: Step, bound: int, expiry: int) -> Step:
    """Results of what closes by the reload are left to its last step."""
    rows = stages.windows[name].reloaded(stages.db, table)
    ends = rows.table["window_end"].to_numpy()
    kept = np.flatnonzero(ends > expiry)
    step.effects.put([rows.keys[i] for i in kept], [rows.values[i] for i in kept])
    if stages.emitter.is_merged(name):
        stages.emitter.send(name, rows, bound, step.effects)
    else:
        stages.emitter.send(
            name, take(rows, np.flatnonzero((ends <= step.closed_upto) | (ends > bound))), bound, step.effects
        )
    return step


def _late(table: pa.Table, step: Step) -> Step:
    ends = order_preserving(table["window_end"].to_numpy())
    names = table["aggregation"].to_pylist()
    row_keys = [aggregation_prefix(keys.LATE, n) + ends[i * 8 : i * 8 + 8] for i, n in enumerate(names)]
    step.effects.put(row_keys, [keys.pack_int(missing) for missing in table["missing"].to_pylist()])
    return step
