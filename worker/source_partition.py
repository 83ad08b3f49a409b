"""A source partition at work: stages, store, transaction; and closing windows while it is quiet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tidegate.errors import ConfigError, SinkRecordError
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import Answers, PartitionState, RawBatch, Reason, Rejection
from tidegate.store.identity import of_topic
from tidegate.store.watermark import EVERYTHING
from worker.commit import StoreClaim, commit
from worker.context import Context
from worker.partition import PartitionTask
from worker.reload import read_stored, reload_steps
from worker.source import SourceStages, Step
from worker.statedb import PartitionDB
from worker.windows import BEGINNING, new_layouts


class SourcePartition(PartitionTask):
    """One partition of a source topic."""

    def __init__(self, tp: TopicPartition, context: Context) -> None:
        super().__init__(tp, context)
        self._state = PartitionState()
        self._closed_upto = BEGINNING
        self._stages: SourceStages | None = None
        event_time = context.plan.pipeline.event_time
        self._idle_after = event_time.idle_timeout / 1000 if event_time else None
        self._claim: StoreClaim | None = None
        self._kept: Answers | None = None  # of the batch that the store has and the state lacks
        self._said: Answers | None = None  # of the batch in hand, which may have to be tried again

    def _load(self, db: PartitionDB) -> int:
        context = self.context
        self._stages = SourceStages(
            context.plan, self.tp, db, context.partition_counts, context.clock, context.handlers
        )
        self.first_rows += new_layouts(db, self.tp, self._stages.layouts)
        state, self._closed_upto = self._stages.load()
        self._state = of_topic(state, self.tp, self.topic_id, "the state", context.plan.pipeline.pipeline_id)
        self.begun = self._stages.begun
        return self._state.upto

    async def _ensure_claim(self) -> None:
        store, guard = self.context.store, self.context.store_guard
        if store is None or guard is None or self._claim is not None:
            return
        self._begin("claiming the partition in the store")
        dedupes = self.context.plan.pipeline.dedupe is not None
        claim = StoreClaim(store, guard, self.tp, self.context.owner, self._in_thread, dedupes=dedupes)
        await claim.claim()
        of_topic(claim.state, self.tp, self.topic_id, "the database", self.context.plan.pipeline.pipeline_id)
        if claim.read < self._state.ledger.read:
            raise ConfigError(
                f"the database has {claim.read} records of {self.tp}, the state {self._state.ledger.read}: it was emptied, "
                "restored from a backup, or added to a pipeline that had begun without it",
                field="sinks",
                hint="restore the database, or take a new pipelineId and compute everything from the log again",
            )
        await claim.begin(self._state)  # with `startAt: latest` the state may know of it and the store not yet
        self._kept = await claim.answers(self._state.upto, of_handlers=bool(self.context.plan.pipeline.handlers))
        self._claim = claim
        self.steps += 1
        if self._state.upto >= claim.worker_upto:
            await self._follow()

    async def _follow(self) -> None:
        """Take over what another engine has applied, if one has, and go on behind it."""
        store, guard, claim = self.context.store, self.context.store_guard, self._claim
        if store is None or guard is None or claim is None or not claim.is_ahead(self._state.upto):
            return
        self._begin("reloading its state from the store")
        stages, before, theirs = self._open_stages(), self._state, claim.state
        stored = await guard.call_async(self._in_thread, lambda: read_stored(store, stages, theirs, before.upto))
        steps = reload_steps(stages, stored, before, self._closed_upto)
        while (step := await self._in_thread(lambda: next(steps, None), self.context.stages)) is not None:
            await self._commit(step)
            self.context.observer.committed(self.tp, step, 0.0, 0.0)
            self.steps += 1
        self._kept = self._said = None
        if self._task is not None:  # else the start is yet to say where it begins
            await self.context.consumer.seek_to(self.tp, self.upto + 1, done=True)
        self._log.info("state.reloaded", after=before.upto, upto=self.upto, rows=stored.rows)

    def _release_claim(self) -> None:
        self._claim = None

    def _close_state(self, db: PartitionDB) -> None:
        stages, self._stages = self._stages, None
        if stages is not None:
            stages.close()
        super()._close_state(db)

    async def begin_after(self, offset: int) -> None:
        """Make "start at the end of the log" a fact of the state: nothing is applied, and the next offset is known."""

        async def write() -> None:
            stages, state = self._open_stages(), replace(self._state, upto=offset)
            await self._commit(
                await self._in_thread(lambda: stages.closing(state, self._closed_upto, self._closed_upto))
            )
            if self._claim is not None:
                await self._claim.begin(state)

        async with self._busy:
            await self._until_done(write)

    async def _work(self, records: list[Any]) -> None:
        raw = await self._in_thread(lambda: RawBatch.of_records(self.tp, records), self.context.stages)
        while (part := self._part(raw)) is not None:
            if (
                self._claim is not None
                and part.first > self._claim.worker_upto
                and self._claim.is_ahead(self._state.upto)
            ):
                await self._follow()
            else:
                await self._batch(part)

    def _part(self, raw: RawBatch) -> RawBatch | None:
        """The next of what is not applied yet; cut where a worker's writes to the store end, so that it skips exactly what it
        has, and where the records would be too many rows with all their windows. None: all is applied."""
        _, rest = _cut(raw, self._state.upto)
        if rest is None:
            return None
        had, new = _cut(rest, self._claim.worker_upto if self._claim else -1)
        part = had or new
        return None if part is None else RawBatch(part.tp, part.records.slice(0, self.context.plan.records_at_once))

    async def _batch(self, raw: RawBatch) -> None:
        """One batch, committed whole. A row that the store refuses is found, dead-lettered, and the rest goes on without it."""
        stages, before = self._open_stages(), replace(self._state, idle=False)
        known = self._known(before.upto, raw.last)
        clock = self.context.clock
        with self.context.observer.batch(self.tp, raw):
            while True:
                self._begin(f"the stages of offsets {raw.first} to {raw.last}")
                step = await self._in_thread(
                    lambda: stages.batch(raw, before, self._closed_upto, known),  # noqa: B023  awaited before they change
                    self.context.stages,
                )
                assert step.result is not None
                self._said, begun = step.result.answers, clock.monotonic()
                self._begin(f"writing offsets {raw.first} to {raw.last} to the store")
                try:
                    if self._claim is not None:
                        await self._claim.write(step)
                    break
                except SinkRecordError as error:
                    refused = self._refused(stages, step, error)
                    if known is not None and not refused.keys() - known.rejected.keys():
                        raise
                    known = self._said = step.result.answers_with(refused)
            written = clock.monotonic()
            await self._commit(step)
            self._said = None
            if self._kept is not None and self._kept.upto <= self.upto:
                self._kept = None
            self.context.observer.committed(self.tp, step, written - begun, clock.monotonic() - written)

    def _known(self, after: int, upto: int) -> Answers | None:
        """What was said of these records when they were tried before, so that nobody is asked again. What the store keeps
        goes first: another worker may have written it meanwhile."""
        tried = (self._kept, self._said)
        return next((answers for answers in tried if answers is not None and answers.covers(after, upto)), None)

    def _refused(self, stages: SourceStages, step: Step, error: SinkRecordError) -> dict[int, Rejection]:
        """What the sink says of the records behind the rows that it refuses."""
        aggregation = next(a for a in self.context.plan.aggregations if a.name == error.aggregation)
        assert step.result is not None
        reason = Reason("SinkRefused", str(error), field=aggregation.name)
        offsets = stages.offsets_of(step.result, aggregation, error.rows)
        return {offset: Rejection(offset, Stage.SINK, (reason,)) for offset in offsets}

    async def _commit(self, step: Step) -> None:
        assert self.producer is not None
        assert self.db is not None
        step.effects.puts += self.first_rows
        self._begin(f"the transaction in Kafka up to offset {step.state.upto}")
        with self.context.observer.producing(self.tp, step):
            await commit(
                step.effects,
                changelog=self.changelog,
                producer=self.producer,
                db=self.db,
                in_thread=self._in_thread,
            )
        self.first_rows = []
        self._state, self._closed_upto, self.upto = step.state, step.closed_upto, step.state.upto

    async def _tick(self) -> None:
        """A partition that is at its end for `idleTimeout` is idle; its windows close when the rest of the pipeline passes."""
        idle = self.context.consumer.idle_seconds(self.tp)
        if self._idle_after is None or idle is None or idle < self._idle_after:
            return
        stages, state = self._open_stages(), replace(self._state, idle=True)
        bound = await self._in_thread(lambda: self._idle_bound(stages))
        if self._state.idle and bound <= self._closed_upto:
            return
        step = await self._in_thread(lambda: stages.closing(state, self._closed_upto, bound))
        if self._claim is not None and not self._state.idle:
            await self._claim.set_idle(True)
        await self._commit(step)
        self.context.observer.committed(self.tp, step, 0.0, 0.0)

    def _idle_bound(self, stages: SourceStages) -> int:
        """Up to where this partition's windows may close (ms): where the others are; all that there are when all are idle."""
        watermark = self.context.pipeline_watermark()
        if watermark is None:
            return self._closed_upto
        return max(
            self._closed_upto, stages.emitter.last_end(self._closed_upto) if watermark == EVERYTHING else watermark
        )

    def _open_stages(self) -> SourceStages:
        assert self._stages is not None
        return self._stages


def _cut(raw: RawBatch, offset: int) -> tuple[RawBatch | None, RawBatch | None]:
    """The records up to `offset`, and those after it; None for an empty part."""
    at = int(np.searchsorted(raw.records.column(0).to_numpy(), offset, side="right"))
    head, tail = raw.records.slice(0, at), raw.records.slice(at)
    return (RawBatch(raw.tp, head) if len(head) else None, RawBatch(raw.tp, tail) if len(tail) else None)
