"""Late records that are not in the results yet, from the topic that keeps them or from the source itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import Message

from batch.backfill.ranges import LogRange
from batch.backfill.splits import Split
from batch.backfill.task import judging
from dlq.collect import pick
from dlq.late_reading import LateReading, LateSource
from tidegate.record import TopicPartition
from tidegate.stages.amend import Amender
from tidegate.stages.batch import BatchResult, NothingSeen, PartitionState, RawBatch
from tidegate.stages.parts import Recollection
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import Plan
from tidegate.store.base import LateAccount
from tidegate.store.late import LateWindow, late_window
from tidegate.store.reading import TopicReader

Found = dict[int, LateSource]
"""Offset → late record, of one source partition."""
Accounts = Mapping[TopicPartition, LateAccount]
Told = Callable[[int], None]
"""Is told how many records more have been read."""

_SETTLE = 3.0  # seconds: the store commits before Kafka, so that a running worker's topics are a transaction behind


def expected(account: LateAccount, plan: Plan) -> dict[LateWindow, int]:
    """How many records of the partition that are not amended yet each window of this pipeline file misses, of those that are
    still there."""
    names = {aggregation.name for aggregation in plan.aggregations}
    counts = {
        window: n.missing - n.refused
        for window, n in account.windows.items()
        if window.aggregation in names and window.end > account.timed_out
    }
    return {window: count for window, count in counts.items() if count}


def agrees(account: LateAccount, plan: Plan, found: Iterable[LateSource]) -> bool:
    """Whether these are exactly the records that the late table counts, of windows as the pipeline file has them."""
    windows = {aggregation.name: aggregation for aggregation in plan.aggregations}
    missed = [m for one in found for m in one.missed if m.aggregation in windows]
    if any(m.end - m.start != windows[m.aggregation].size or m.start % windows[m.aggregation].hop for m in missed):
        return False
    return Counter(late_window(m.aggregation, m.start, m.end) for m in missed) == expected(account, plan)


def from_topic(plan: Plan, reader: TopicReader, accounts: Accounts, told: Told) -> dict[TopicPartition, Found]:
    """From the late topic or the dead letters, to their ends; each once, however often it was written.

    Empty when the pipeline's strategy keeps late records nowhere. Raises BrokerUnavailable.
    """
    reading = LateReading(plan)
    found: dict[TopicPartition, Found] = {tp: {} for tp in accounts}
    if reading.topic is None or not (partitions := reader.partitions(reading.topic)):
        return {}
    reader.start({tp: reader.bounds(tp)[0] for tp in (TopicPartition(reading.topic, n) for n in partitions)})

    def note(messages: Iterable[Message]) -> None:
        for message in messages:
            told(1)
            one = reading.read(message)
            if one is not None and one.tp in accounts:
                account = accounts[one.tp]
                there = _still_there(one, account)
                if there is not None and account.amended_upto < one.offset <= account.upto:
                    found[one.tp][one.offset] = there

    note(reader.to_the_end())
    if not all(agrees(account, plan, found[tp].values()) for tp, account in accounts.items()):
        note(reader.for_a_while(_SETTLE))
    return found


def from_source(plan: Plan, log: LogRange, accounts: Accounts, told: Told) -> dict[TopicPartition, Found]:
    """By reading the source from its beginning: lateness is a fact of the log, and is found again.

    Nothing of a partition whose log has lost its beginning, if the pipeline dedupes: its first records could not be told
    from duplicates. Raises BrokerUnavailable.
    """
    amender, found = Amender(plan), dict[TopicPartition, Found]()
    try:
        for tp, (low, high) in log.bounds(list(accounts)).items():
            if high > accounts[tp].upto and (low == 0 or plan.pipeline.dedupe is None):
                scan = _Scan(plan, accounts[tp])
                for raw in log.read(Split(tp, low, accounts[tp].upto + 1), plan.records_at_once):
                    told(len(raw))
                    scan.take(raw)
                found[tp] = scan.late(amender)
    finally:
        amender.close()
    return found


def _still_there(one: LateSource, account: LateAccount) -> LateSource | None:
    """Without the windows that have timed out; None when no other misses the record."""
    missed = tuple(window for window in one.missed if window.end > account.timed_out)
    return one._replace(missed=missed) if missed else None


class _Scan:
    """One source partition, judged from its first record on."""

    def __init__(self, plan: Plan, account: LateAccount) -> None:
        self._stages, self._account = StagePipeline(judging(plan)), account
        self._state, self._memory = PartitionState(), Recollection(NothingSeen())
        self._found: Found = {}

    def take(self, raw: RawBatch) -> None:
        result = self._stages.run(raw, self._state, self._memory)
        self._state = result.state
        self._memory.remember(result.seen)
        self._note(result)

    def _note(self, result: BatchResult) -> None:
        late = [one for one in result.late if one.offset > self._account.amended_upto]
        for one, record in zip(late, pick(result.raw, [one.offset for one in late]), strict=True):
            found = _still_there(LateSource.of(record, one.missed, one.partial), self._account)
            if found is not None:
                self._found[one.offset] = found

    def late(self, amender: Amender) -> Found:
        """What was found. A record that counted in no window then, because a handler or an expression refused it or left it
        out, is none of those that are late for some windows only."""
        self._stages.close()
        partial = [one for one in self._found.values() if one.partial]
        if partial:
            missed = {one.offset: one.missed for one in partial}
            counted = amender.run(RawBatch.of_records(self._account.tp, partial), missed).offsets
            for offset in missed.keys() - counted:
                del self._found[offset]
        return self._found
