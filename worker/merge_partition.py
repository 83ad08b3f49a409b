"""A partition of the partials topic at work: totals of groups that spread over source partitions."""

from __future__ import annotations

from typing import Any

from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.store.identity import of_topic
from worker.commit import commit
from worker.context import Context
from worker.merge import MergeStages
from worker.partition import PartitionTask
from worker.statedb import PartitionDB
from worker.windows import BEGINNING


class MergePartition(PartitionTask):
    """One partition of the partials topic. It has no row in the store: the store's view adds up the partials itself."""

    def __init__(self, tp: TopicPartition, context: Context) -> None:
        super().__init__(tp, context)
        self._state, self._closed_upto = PartitionState(), BEGINNING
        self._stages: MergeStages | None = None

    def _load(self, db: PartitionDB) -> int:
        self._stages = MergeStages(self.context.plan, self.tp, db, self.context.sources)
        state, self._closed_upto = self._stages.load()
        self._state = of_topic(state, self.tp, self.topic_id, "the merge agent", self.context.plan.pipeline.pipeline_id)
        return self._state.upto

    async def _work(self, records: list[Any]) -> None:
        stages = self._stages
        assert stages is not None
        assert self.producer is not None
        assert self.db is not None
        if records[-1].offset <= self._state.upto:
            return
        step = await self._in_thread(lambda: stages.batch(records, self._state, self._closed_upto), self.context.stages)
        step.effects.puts += self.first_rows
        await commit(
            step.effects, changelog=self.changelog, producer=self.producer, db=self.db, in_thread=self._in_thread
        )
        self.first_rows = []
        self._state, self._closed_upto, self.upto = step.state, step.closed_upto, step.state.upto
        self.context.observer.merged(step.expired)

    async def _tick(self) -> None:
        """Windows close by the watermarks in the log alone; a quiet partition has nothing to do."""
