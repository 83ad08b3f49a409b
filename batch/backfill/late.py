"""`tidegate batch backfill --late`: windows that miss late records get them, once each. Whoever asks "can this lose or double
a record?" of it reads this file.

1. the store    says, as of one moment, how far each partition is applied and amended, and how many records each window misses
2. the topics   give these records: the late topic (or the dead letters), else the source, read from its beginning.
                Nothing is written for a partition before what was found is, window by window, what the store counts
3. the stages   take the records again, into exactly the windows that miss them, in the lane `late`
4. the store    adds a stretch of one partition's records in one transaction: their partials, what windows miss now, and up
                to which offset it is amended; compare-and-set on that, so that two backfills do not add the same record

A run that is killed leaves whole stretches, and the next goes on behind them. A worker that counts more late records meanwhile
adds to the same numbers; they are of offsets behind `upto`, and are the next run's.
"""

from __future__ import annotations

import os
import socket
import uuid
from typing import Protocol

import structlog

from batch.backfill.gather import Found, agrees, expected, from_source, from_topic
from batch.backfill.late_report import LateReport
from batch.backfill.patience import Patience
from batch.backfill.ranges import KafkaRange, LogRange
from batch.backfill.stretch import Stretches
from batch.needs import require_store
from tidegate.config.pipeline import Pipeline
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.plan import compile_plan
from tidegate.store import open_store
from tidegate.store.base import LateAccount
from tidegate.store.reading import TopicReader

log = structlog.get_logger(__name__)
_STRETCH = 20_000  # records of one transaction


class Watch(Protocol):
    """Who is told how it goes. `total`: how many there are to come; None: not known."""

    def phase(self, what: str, total: int | None = None) -> None: ...

    def advance(self, count: int) -> None: ...


class LateBackfill:
    """One run over one pipeline. `source`: read this log even where there is a topic of late records."""

    def __init__(self, pipeline: Pipeline, watch: Watch, *, source: LogRange | None = None) -> None:
        """Raises ConfigError for a pipeline that has no store."""
        self._sink = require_store(pipeline)
        self._plan, self._watch, self._source = compile_plan(pipeline), watch, source
        self._pipeline = pipeline
        self._of_store = Patience(Guard("store", pipeline.error_handling))
        self._of_kafka = Patience(Guard("kafka", pipeline.error_handling))
        self._owner = f"backfill:{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.report = LateReport(pipeline.pipeline_id)

    def run(self) -> LateReport:
        """Amend what can be amended; the report says what cannot.

        Raises DependencyError when the brokers, the database or what a handler needs stay away, StoreFenced when another
        backfill is at work, AggregateOverflow. Whole stretches are in the store then.
        """
        store = open_store(self._plan, self._sink)
        try:
            self._of_store.call(store.prepare)
            accounts = {account.tp: account for account in self._of_store.call(store.late_accounts)}
            self.report.begin(accounts.values())
            wanted = {tp: account for tp, account in accounts.items() if expected(account, self._plan)}
            found = self._gather(wanted)
            stretches = Stretches(self._plan, store, self._of_store, self._owner)
            try:
                self._watch.phase("amending", sum(map(len, found.values())))
                for tp in sorted(found):
                    self._amend(stretches, wanted[tp], found[tp])
            finally:
                stretches.close()
            self.report.end(self._of_store.call(store.late_accounts))
        finally:
            store.close()
        return self.report

    def _gather(self, wanted: dict[TopicPartition, LateAccount]) -> dict[TopicPartition, Found]:
        """Step 2: the partitions whose late records were all found, each from the first place that had them."""
        found: dict[TopicPartition, Found] = {}
        kafka = KafkaRange.of(self._pipeline, "backfill")
        if wanted:
            self._of_kafka.call(
                kafka.bounds, list(wanted)
            )  # brokers that are not there are said now, and not waited for
        if wanted and self._source is None:
            self._watch.phase("reading the late records")
            self._keep(found, wanted, self._of_kafka.call(self._from_topic, wanted), "late")
        rest = {tp: account for tp, account in wanted.items() if tp not in found}
        if rest:
            self._watch.phase("reading the source")
            gathered = self._of_kafka.call(from_source, self._plan, self._source or kafka, rest, self._watch.advance)
            self._keep(found, rest, gathered, "source")
        for tp in wanted.keys() - found.keys():
            self.report.partitions[tp].problem = (
                "neither topic has exactly the records that its windows miss: they have expired, or eventTime, the rules or "
                "the windows were changed since they were read"
            )
            log.error("backfill.not_found", topic=tp.topic, partition=tp.partition)
        return found

    def _from_topic(self, wanted: dict[TopicPartition, LateAccount]) -> dict[TopicPartition, Found]:
        with TopicReader(self._pipeline.kafka, f"{self._pipeline.pipeline_id}-backfill") as reader:
            return from_topic(self._plan, reader, wanted, self._watch.advance)

    def _keep(
        self,
        found: dict[TopicPartition, Found],
        wanted: dict[TopicPartition, LateAccount],
        gathered: dict[TopicPartition, Found],
        place: str,
    ) -> None:
        """What agrees with the late table."""
        for tp, records in gathered.items():
            if agrees(wanted[tp], self._plan, records.values()):
                found[tp] = records
                self.report.partitions[tp].source = place

    def _amend(self, stretches: Stretches, account: LateAccount, found: Found) -> None:
        """Steps 3 and 4, for one partition."""
        before, offsets = account.amended_upto, sorted(found)
        for start in range(0, len(offsets), _STRETCH):
            stretch = offsets[start : start + _STRETCH]
            upto = stretch[-1] if start + _STRETCH < len(offsets) else account.upto
            records = [found[offset] for offset in stretch]
            amended = stretches.add(records, before, upto)
            self.report.add(self.report.partitions[account.tp], records, amended)
            self._watch.advance(len(stretch))
            before = upto
