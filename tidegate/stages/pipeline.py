"""A record's way, in one function: `StagePipeline.run`. Both engines call it; nothing in it writes anything."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np
import pyarrow as pa

from tidegate.arrow import where
from tidegate.ledger import Ledger
from tidegate.record import Stage
from tidegate.stages.aggregate import Aggregator
from tidegate.stages.batch import Answers, BatchResult, NothingSeen, PartitionState, RawBatch, Seen
from tidegate.stages.decode import Decoder
from tidegate.stages.dedupe import Dedupe
from tidegate.stages.eventtime import EventTimes, count_missing
from tidegate.stages.handle import HandlerChain, ask
from tidegate.stages.ladder import Ladder
from tidegate.stages.membership import OpenWindows
from tidegate.stages.parts import Recollection, join
from tidegate.stages.plan import Plan
from tidegate.stages.repeats import drop_repeats
from tidegate.stages.rules import RuleSet
from tidegate.stages.sql import connect, query, quote
from tidegate.stages.turns import Taken, ask_in_turn
from tidegate.stages.types import EVENT_TIME, LANE, OFFSET, TIMESTAMP


class StagePipeline:
    """The stages of one pipeline, ready to run. Used by one thread at a time: it has a DuckDB connection of its own.

    `handlers`: a chain that several partitions share; without it there is one of its own. Raises ConfigError for what
    cannot be made ready (a handler that cannot be imported, a rule that does not fit).
    """

    def __init__(self, plan: Plan, handlers: HandlerChain | None = None) -> None:
        self.plan = plan
        self._con = connect()
        self._decoder = Decoder(plan.pipeline)
        self._rules = RuleSet(plan.pipeline, plan.decoded)
        self._event_times = EventTimes(plan)
        self._dedupe = Dedupe(plan, self._con)
        self._handlers = handlers or HandlerChain(plan.pipeline, plan.decoded)
        self._owns_handlers = handlers is None
        self._aggregator = Aggregator(plan, self._con)
        self._ladder = Ladder(plan.pipeline.error_handling.retry_topics)
        self._keeps_order = plan.pipeline.error_handling.retry_topics.keep_order and bool(plan.pipeline.handlers)
        self._nothing = accepted_schema(plan).empty_table()

    def run(
        self, raw: RawBatch, state: PartitionState, seen: Seen | None = None, known: Answers | None = None
    ) -> BatchResult:
        """Take one partition's records through every stage up to the aggregates.

        Records that were applied before (offset ≤ `state.upto`) are left out and not counted again. Every result but
        the handlers' depends on the log alone, not on how it is cut into batches. `known`: what handlers and sinks said
        of some of these records before; they are not asked again. Raises PipelineAborted, DependencyError (a handler's
        outage), AggregateOverflow, ConfigError (`known` is of another pipeline file); nothing has changed then.
        """
        rest = _split(raw, state.upto)[1]
        if len(rest) == 0:
            return BatchResult(rest, state, state, self._nothing)
        memory, parts = Recollection(seen or NothingSeen()), list[BatchResult]()
        while len(rest):
            result, rest = self._through(rest, state, memory, known)
            memory.remember(result.seen)
            state = result.state
            parts.append(result)
        return join(parts, self.plan, self._con)

    def _through(
        self, raw: RawBatch, state: PartitionState, seen: Seen, known: Answers | None
    ) -> tuple[BatchResult, RawBatch]:
        """The way of the records, stage by stage; and those that could not go yet (see dedupe.py), as a rule none.

        1. decode      bytes to typed columns; malformed records are rejected, tombstones skipped. Before that: a replay
                       that was sent a second time is a duplicate, and goes no further (repeats.py)
        2. validate    the rules of the pipeline; errors reject, warnings count
        3. event time  is read; records without one, or with one too far in the future, are rejected
        4. dedupe      the first record with a key goes on
        5. event time  decides: records whose windows have all closed are late; valid ones move the high water;
                       replays of records whose windows are forgotten are rejected
        6. handle      the user's Python steps; they may reject, filter and change records. Whatever they, or a sink,
                       have said of a record before (`known`) holds, and they are not asked again. With `keepOrder` a
                       record behind one that waits for a delayed retry is put away, too (turns.py)
        7. aggregate   partials per window, group and lane
        8. account     what may succeed later is deferred; the ledger moves by what happened, and must balance
        """
        watch = _Stopwatch()
        fresh = drop_repeats(raw, state.replays)
        decoded = self._decoder.decode(fresh.records)
        watch.lap(Stage.DECODE)
        checked = self._rules.check(decoded.rows)
        valid = self._carried(decoded.rows, known)
        valid = valid if checked.passed.all() else where(valid, checked.passed)
        watch.lap(Stage.VALIDATE)
        timed = self._event_times.stamp(valid)
        watch.lap(Stage.EVENT_TIME)
        deduped = self._dedupe.split(timed.rows, state, seen)
        if deduped.cut is not None:
            head, rest = _split(raw, deduped.cut - 1)
            return self._through(head, state, seen, known)[0], rest
        watch.lap(Stage.DEDUPE)
        judged = self._event_times.judge(deduped.rows, state.high_water)
        watch.lap(Stage.EVENT_TIME)
        asked, deferred, lines = self._ask(judged.rows, raw, state, known)
        handled = asked.handled
        watch.lap(Stage.HANDLE)
        aggregated = self._aggregator.apply(handled.rows, OpenWindows(judged.bar_of(handled.rows)))
        watch.lap(Stage.AGGREGATE)

        dead = [*judged.rejected, *handled.rejected, *aggregated.rejected]
        if not self._keeps_order:
            dead, deferred = self._ladder.split(dead, raw)
        refused = [*dead, *(one.rejection for one in deferred)]
        invalid = [*decoded.rejected, *checked.rejected, *timed.rejected, *deduped.rejected]
        moved = Ledger(
            read=len(raw),
            accepted=aggregated.rows.num_rows,
            dead_lettered=len(invalid) + len(dead),
            late=len(judged.late),
            deferred=len(deferred),
            duplicate=deduped.duplicates + fresh.repeats,
            filtered=handled.filtered,
            skipped=decoded.skipped,
            replayed=fresh.replayed,
        )
        _require_balance(moved, raw)
        late = judged.late_among(aggregated.rows)
        result = BatchResult(
            raw,
            state,
            PartitionState(
                raw.last,
                judged.high_water,
                deduped.clock,
                state.ledger + moved,
                topic_id=state.topic_id,
                lines=lines,
                replays=fresh.memory,
            ),
            aggregated.rows,
            aggregated.deltas,
            sorted([*invalid, *dead], key=lambda rejection: rejection.offset),
            sorted(deferred, key=lambda deferral: deferral.rejection.offset),
            late,
            count_missing(late),
            deduped.seen + deduped.marks({*(r.offset for r in refused), *(late.offset for late in judged.late)}),
            checked.tallies,
            asked.answers,
            fresh.repeats,
            watch.seconds,
        )
        return result, _split(raw, raw.last)[1]

    def _carried(self, rows: pa.Table, known: Answers | None) -> pa.Table:
        """The columns that go on: what nobody looks at any more need not be sorted out. Answers of a handler that has gone
        meanwhile are compared with all of them."""
        if self._handlers.asks or (known is not None and known.rows is not None):
            return rows
        return rows.select([*self.plan.read, OFFSET, TIMESTAMP, LANE])

    def _ask(self, rows: pa.Table, raw: RawBatch, state: PartitionState, known: Answers | None) -> Taken:
        """The handlers, and what of it waits for its turn, where a key's order is kept."""
        if self._keeps_order:
            return ask_in_turn(self._handlers, self._ladder, rows, raw, state, known)
        return Taken(ask(self._handlers, rows, raw, state.upto, known), [], b"")

    def offsets_of(self, result: BatchResult, aggregation: str, rows: Sequence[int]) -> list[int]:
        """The offsets of the records behind these rows (by index) of `result.deltas[aggregation]`, ascending.

        For dead-lettering what a sink refuses: the batch is run again with an answer for each (`BatchResult.answers_with`).
        """
        return self.offsets_behind(result, aggregation, result.deltas[aggregation].take(pa.array(rows, pa.int64())))

    def offsets_behind(self, result: BatchResult, aggregation: str, partials: pa.Table) -> list[int]:
        """As `offsets_of`, for partials of the same windows, groups and lanes, of this batch or of a larger one."""
        keys = self._aggregator.keys(aggregation, result.accepted)
        closed = {
            (r.offset, m.start) for r in result.late if r.partial for m in r.missed if m.aggregation == aggregation
        }
        if closed:
            counted = zip(keys[OFFSET].to_pylist(), keys["window_start"].to_pylist(), strict=True)
            keys = keys.filter(pa.array([pair not in closed for pair in counted]))
        same = " AND ".join(f"k.{quote(n)} IS NOT DISTINCT FROM w.{quote(n)}" for n in keys.column_names if n != OFFSET)
        sql = f"SELECT DISTINCT {OFFSET} FROM keys k SEMI JOIN wanted w ON {same} ORDER BY 1"
        offsets: list[int] = query(self._con, sql, keys=keys, wanted=partials).column(OFFSET).to_pylist()
        return offsets

    def close(self) -> None:
        """Give back the connection, and the handlers' threads if they are this pipeline's own."""
        if self._owns_handlers:
            self._handlers.close()
        self._con.close()


def accepted_schema(plan: Plan) -> pa.Schema:
    """The columns of `BatchResult.accepted`."""
    columns = plan.columns if plan.pipeline.handlers else [plan.decoded.field(name) for name in plan.read]
    own = [(OFFSET, pa.int64()), (TIMESTAMP, pa.int64()), (LANE, pa.string()), (EVENT_TIME, pa.int64())]
    return pa.schema([*columns, *(pa.field(name, kind) for name, kind in own)])


def _split(raw: RawBatch, upto: int) -> tuple[RawBatch, RawBatch]:
    """The records up to this offset, and those after it."""
    at = int(np.searchsorted(raw.records.column("offset").to_numpy(), upto, side="right"))
    return RawBatch(raw.tp, raw.records.slice(0, at)), RawBatch(raw.tp, raw.records.slice(at))


def _require_balance(moved: Ledger, raw: RawBatch) -> None:
    """A batch that loses or doubles a record is a bug of ours: stop before anything is written."""
    if not moved.balanced:
        raise AssertionError(f"{raw.tp}, offsets {raw.first} to {raw.last}: the ledger does not balance: {moved}")


class _Stopwatch:
    """Seconds per stage; a stage can have several laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: Stage) -> None:
        now = perf_counter()
        self.seconds[stage.value] = self.seconds.get(stage.value, 0.0) + now - self._last
        self._last = now
