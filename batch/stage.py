"""What an executor does: one Kafka partition's share of a micro-batch through the stages, in offset order.

A task has one stretch of one partition, which it reads itself. The records come in chunks; the state goes from one chunk to
the next as it goes from batch to batch in a worker.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import pyarrow as pa

from batch import wire
from batch.fetch import Stretch, StretchReader
from batch.needs import require_runnable
from dlq.collect import dead_letters
from dlq.late import late_records
from dlq.policy import Failures
from dlq.publishers import open_publisher
from dlq.retry.rows import retry_rows
from tidegate.clock import SystemClock
from tidegate.config.secrets import secret_values
from tidegate.config.topics import late_topic
from tidegate.errors import TidegateError
from tidegate.garbage import quieten_garbage_collection
from tidegate.record import Stage, TopicPartition
from tidegate.stages.aggregate import merge_partials
from tidegate.stages.batch import BatchResult, PartitionState, RawBatch, Reason, Rejection, Seen
from tidegate.stages.parts import Recollection
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import Plan
from tidegate.stages.sql import connect
from tidegate.store import open_store
from tidegate.store.progress import source_topics
from tidegate.store.seen import seen_table
from tidegate.telemetry.logs import configure_logging


@dataclass(frozen=True, slots=True)
class Refused:
    """Partials (`keys`: rows of `BatchResult.deltas`) of one aggregation that the store has refused, and what it said."""

    aggregation: str
    keys: pa.Table
    message: str


@dataclass(frozen=True, slots=True)
class StageTask:
    """The function for `mapInArrow`. Sent to the executors with every micro-batch: it holds the partitions' states.

    `stretches`: some for each task, which finds its own by the number that it is given as the only row of its input.
    `counts`: partitions of the topics of dead letters and late records.
    """

    plan: Plan
    stretches: Sequence[Sequence[Stretch]]
    states: Mapping[TopicPartition, PartitionState]
    counts: Mapping[str, int]
    refused: Mapping[TopicPartition, Sequence[Refused]] = field(default_factory=dict)

    def __call__(self, numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Parts of the outcome (wire.py)."""
        for batch in numbers:
            for number in batch.column(0).to_pylist():
                reader = _tools(pickle.dumps(self.plan)).reader
                try:
                    for stretch in self.stretches[number]:
                        yield from self.through(stretch.tp, reader.read(stretch))
                except TidegateError as error:
                    yield wire.send_error(error)

    def warm_up(self, numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Make what the tasks will use. One row comes out, by which tasks can be counted."""
        reader = _tools(pickle.dumps(self.plan)).reader
        for topic in source_topics(self.plan.pipeline):
            reader.meet(topic)
        for _ in numbers:
            pass  # Spark would take a task that leaves some for one that failed
        yield wire.ready()

    def through(self, tp: TopicPartition, chunks: Iterable[RawBatch]) -> Iterator[pa.RecordBatch]:
        """The records through the stages; nothing comes out of no records. Raises TidegateError."""
        share: Share | None = None
        for raw in chunks:
            share = share or Share(self, tp)
            yield from share.take(raw)
        if share is not None:
            yield from share.finish()


class Share:
    """One partition's part of one micro-batch."""

    def __init__(self, task: StageTask, tp: TopicPartition) -> None:
        self._task, self._tp = task, tp
        self._plan, self._tools = task.plan, _tools(pickle.dumps(task.plan))
        self._before = self._state = task.states[tp]
        self._memory = Recollection(_Stored(self._tools, tp))
        self._deltas: dict[str, list[pa.Table]] = {aggregation.name: [] for aggregation in self._plan.aggregations}
        self._late_windows: list[pa.Table] = []
        self._seen: dict[bytes, int] = {}

    def take(self, raw: RawBatch) -> Iterator[pa.RecordBatch]:
        """One chunk; what it has for Kafka. Raises what the stages raise, and PipelineAborted without a dead-letter queue."""
        result = self._run(raw)
        if not len(result.raw):
            return
        self._state = result.state
        self._memory.remember(result.seen)
        self._seen.update(result.seen)
        for name, table in result.deltas.items():
            self._deltas[name].append(table)
        if result.late_windows is not None:
            self._late_windows.append(result.late_windows)
        yield wire.send(self._tp, self._written(result))

    def finish(self) -> Iterator[pa.RecordBatch]:
        """What all of the chunks have changed, in order: a database's index then grows at its end, not all over the place (a
        third of its time, with as many results as records)."""
        merged = {
            a.name: merge_partials(a, self._deltas[a.name], self._tools.connection, ordered=True)
            for a in self._plan.aggregations
            if self._deltas[a.name]
        }
        yield from wire.send_deltas(self._tp, merged)
        late = pa.concat_tables(self._late_windows) if self._late_windows else None
        seen = None
        if self._plan.pipeline.dedupe is not None:
            seen = seen_table(self._seen.items())
        yield wire.send(self._tp, wire.Applied(self._before, self._state, late, seen))

    def _run(self, raw: RawBatch) -> BatchResult:
        """The chunk through the stages; once more, if the store has refused what some of its records add to."""
        stages = self._tools.stages
        result = stages.run(raw, self._state, self._memory)
        if not len(result.raw):
            return result
        refused = {
            offset: Rejection(offset, Stage.SINK, (Reason("SinkRefused", refused.message, field=refused.aggregation),))
            for refused in self._task.refused.get(self._tp, ())
            for offset in stages.offsets_behind(result, refused.aggregation, refused.keys)
        }
        return stages.run(raw, self._state, self._memory, result.answers_with(refused)) if refused else result

    def _written(self, result: BatchResult) -> wire.Written:
        """Dead letters and late records, as a worker writes them."""
        plan, publisher, counts, clock = self._plan, self._tools.publisher, self._task.counts, SystemClock()
        dead = dead_letters(result, plan, clock, context={"engine": "spark", "host": socket.gethostname()})
        late = late_records(result, plan, clock, partitions=counts.get(late_topic(plan.pipeline) or "", 1))
        letters = [*dead, *late.letters]
        rows = publisher.rows(letters, self._tp, counts.get(publisher.topic or "", 1)) if letters else []
        retries = retry_rows(result, plan, clock, counts)
        return wire.Written([*rows, *late.rows, *retries], len(dead), Failures.of(result, dead))


class _Tools:
    """What a Python worker makes once and uses for every task of a pipeline."""

    def __init__(self, plan: Plan) -> None:
        telemetry = plan.pipeline.telemetry
        configure_logging(telemetry.log_level, telemetry.log_format, secrets=secret_values(plan.pipeline))
        self.plan, self.stages, self.publisher = plan, StagePipeline(plan), open_publisher(plan)
        self.connection = connect()
        self.store = open_store(plan, require_runnable(plan.pipeline))
        limits = plan.pipeline.worker
        most = min(limits.max_batch_records, plan.records_at_once)
        group = f"{plan.pipeline.pipeline_id}-spark"
        self.reader = StretchReader(plan.pipeline.kafka, group, most, limits.max_batch_bytes)
        # After each task PySpark collects garbage among all objects there are: 64 ms, where a task of 125 000 records takes 400.
        quieten_garbage_collection()


@lru_cache(maxsize=1)
def _tools(pickled: bytes) -> _Tools:
    return _Tools(pickle.loads(pickled))


class _Stored(Seen):
    """Dedupe's memory in the store, as it was before the micro-batch."""

    def __init__(self, tools: _Tools, tp: TopicPartition) -> None:
        self._store, self._tp = tools.store, tp

    def get(self, keys: Sequence[bytes]) -> list[int | None]:
        return self._store.seen(self._tp, keys)
