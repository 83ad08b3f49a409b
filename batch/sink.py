"""A micro-batch's writes. Whoever asks "can this lose a record?" of the second engine reads this file.

1. Kafka       dead letters and late records, confirmed by the brokers; each with its deterministic id
2. the store   the results, late windows and partition rows of all partitions in one database transaction; compare-and-set
               on each row, so that a worker or another run that has taken a partition fences this one
3. sinks       whatever else there is follows the store (batch/publish/publisher.py)

Meanwhile the next micro-batch is computed (batch/microbatch.py), on the states that this one will have made; nothing of it is
written before this one is through. Spark's own checkpoint may be ahead of all that: nobody relies on it.

A crash between 1 and 2 writes dead letters again, with the same ids, so that whoever counts ids counts them once. A crash
between 2 and 3 is made up for by the next run, which starts from the partition rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import structlog

from batch import wire
from batch.claims import Claims
from batch.producer import ConfirmedProducer
from batch.stage import Refused
from dlq.policy import Failures, FloodGuard
from tidegate.errors import SinkRecordError
from tidegate.ledger import Ledger
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import PartitionState
from tidegate.stages.plan import AggregationPlan, Plan

log = structlog.get_logger(__name__)

Refusals = dict[TopicPartition, list[Refused]]
Compute = Callable[[Refusals], Sequence[wire.Outcome]]
"""Runs the stages on Spark. Given what the store has refused so far."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a micro-batch has changed. `dead`: dead letters of records that failed, which the brokers have.

    `states`: of all partitions, as they are now. `rows`: aggregation → partials that were added to. `lags`: offsets that are left
    of each partition (None: not known). `seconds`: that all of it took. `touched`: aggregation → windows and groups that were
    added to, perhaps more than once.
    """

    ledgers: Mapping[TopicPartition, Ledger] = field(default_factory=dict)
    dead: int = 0
    states: Mapping[TopicPartition, PartitionState] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    lags: Mapping[TopicPartition, int] | None = None
    seconds: float = 0.0
    touched: Mapping[str, pa.Table] = field(default_factory=dict)


class BatchSink:
    """Commits micro-batches, one after the other."""

    def __init__(self, plan: Plan, claims: Claims, producer: ConfirmedProducer, broker: Guard) -> None:
        self._plan, self._claims, self._producer, self._broker = plan, claims, producer, broker
        self._flood = FloodGuard(plan.pipeline.error_handling.flood_guard)

    def commit(self, outcomes: Sequence[wire.Outcome], compute: Compute) -> Commit:
        """One micro-batch, committed whole. What the store refuses is dead-lettered, and the rest goes on without it: then it is
        computed again.

        Raises FloodGuardTripped, PipelineAborted, StoreFenced, DependencyError; whatever the stages raise.
        """
        refusals: Refusals = {}
        while True:
            for outcome in outcomes:
                if outcome.written:
                    self._flood.observe(Failures.joined([written.failures for written in outcome.written]))
            rows = [row for outcome in outcomes for written in outcome.written for row in written.rows]
            if rows:
                self._broker.call(self._producer.write, rows)
            try:
                self._write(outcomes)
            except SinkRecordError as error:
                self._note(refusals, outcomes, error)
                outcomes = compute(refusals)
                continue
            dead = sum(written.dead for outcome in outcomes for written in outcome.written)
            moved = {outcome.tp: _moved(outcome) for outcome in outcomes}
            touched = {a.name: table for a in self._plan.aggregations if (table := _touched(outcomes, a)) is not None}
            return Commit(moved, dead, dict(self._claims.states), _rows(outcomes), touched=touched)

    def _write(self, outcomes: Sequence[wire.Outcome]) -> None:
        """Step 2."""
        self._claims.write(
            [
                self._claims.batch(
                    outcome.tp,
                    outcome.applied.state,
                    deltas={name: pa.concat_tables(tables) for name, tables in outcome.deltas.items()},
                    late_windows=outcome.applied.late_windows,
                    seen=outcome.applied.seen,
                )
                for outcome in outcomes
                if outcome.applied.state.upto > outcome.applied.before.upto
            ]
        )

    def _note(self, refusals: Refusals, outcomes: Sequence[wire.Outcome], error: SinkRecordError) -> None:
        """Remember which partials the store refuses. Raises the error again if that is known: it would go on for ever."""
        tp, name = error.tp, error.aggregation
        assert tp is not None
        assert name is not None
        deltas = pa.concat_tables(next(outcome for outcome in outcomes if outcome.tp == tp).deltas[name])
        keys = deltas.take(pa.array(error.rows, pa.int64()))
        known = [refused.keys for refused in refusals.get(tp, ()) if refused.aggregation == name]
        if any(before.equals(keys) for before in known):
            raise error
        log.warning("sink.refused", topic=tp.topic, partition=tp.partition, aggregation=name, partials=len(error.rows))
        refusals.setdefault(tp, []).append(Refused(name, keys, str(error)))


def _rows(outcomes: Sequence[wire.Outcome]) -> dict[str, int]:
    rows: Counter[str] = Counter()
    for outcome in outcomes:
        for name, tables in outcome.deltas.items():
            rows[name] += sum(table.num_rows for table in tables)
    return dict(rows)


def _touched(outcomes: Sequence[wire.Outcome], aggregation: AggregationPlan) -> pa.Table | None:
    keys = ["window_start", "window_end", *(column.name for column in aggregation.group)]
    parts = [table.select(keys) for outcome in outcomes for table in outcome.deltas.get(aggregation.name, ())]
    return pa.concat_tables(parts) if parts else None


def _moved(outcome: wire.Outcome) -> Ledger:
    before, after = outcome.applied.before.ledger, outcome.applied.state.ledger
    return Ledger(*(getattr(after, name) - getattr(before, name) for name in Ledger.__slots__))
