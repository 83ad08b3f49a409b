"""Source topics into an archive: each record once, whatever is killed when.

1. plan    the stretch of offsets that comes next is decided and written down: from where the last one ends to where the log ends
           now, or to STRETCH offsets. Those that were begun and are not done come first, with the ends that were decided then
2. files   one for each day in it, named by partition and the stretch's offsets: whoever writes them again writes the same
3. done    the stretch is named with its files; the next begins behind it

So a run that was killed leaves at worst files that the next run writes again under the same names. Nothing is ever deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.archive.layout import SCHEMA, Archive, File, Stretch, data_path
from batch.backfill.late import Watch
from batch.backfill.pool import Here, Processes
from batch.backfill.ranges import KafkaRange, LogRange
from batch.backfill.splits import Split
from batch.backfill.task import Guarded
from tidegate.config.kafka import confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.errors import OffsetOutOfRange, TopicRecreated
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.store.progress import source_topics
from tidegate.topics import partition_counts, topic_ids

STRETCH: Final = 250_000
"""Offsets of one stretch: its records are in memory at once."""
_FEW: Final = 200_000  # offsets; fewer are done here before other processes have started


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What was archived. `gaps`: partition → (first, last) offsets that the log had lost before they were archived."""

    pipeline: str
    place: str
    partitions: dict[TopicPartition, list[Stretch]] = field(default_factory=dict)
    upto: dict[TopicPartition, int] = field(default_factory=dict)
    gaps: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """A row per source partition. `upto`: the last offset that the archive covers."""
        return [
            {
                "topic": tp.topic,
                "partition": tp.partition,
                "upto": self.upto.get(tp, 0) - 1 if self.upto.get(tp) else None,
                "records": sum(stretch.records for stretch in stretches),
                "files": sum(len(stretch.files) for stretch in stretches),
                "gap": self.gaps.get(tp),
            }
            for tp, stretches in sorted(self.partitions.items())
        ]

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        rows = self.rows()
        totals = {name: sum(row[name] for row in rows) for name in ("records", "files")}
        return {"pipelineId": self.pipeline, "to": self.place, **totals, "partitions": rows}


@dataclass(frozen=True, slots=True)
class Write:
    """The task of step 2: a stretch of one partition into its files."""

    log: LogRange
    archive: Archive

    def __call__(self, given: tuple[TopicPartition, Stretch]) -> Stretch:
        tp, stretch = given
        batches = [raw.records for raw in self.log.read(Split(tp, stretch.start, stretch.end), STRETCH)]
        files = [self._write(tp, stretch, day, table) for day, table in _by_day(_table(tp, batches))] if batches else []
        return Stretch(stretch.start, stretch.end, stretch.topic_id, tuple(files))

    def _write(self, tp: TopicPartition, stretch: Stretch, day: str, table: pa.Table) -> File:
        sink, path = pa.BufferOutputStream(), data_path(tp, day, stretch)
        pq.write_table(table, sink, compression="zstd", row_group_size=50_000)
        self.archive.write(path, sink.getvalue())
        bounds = pc.min_max(table.column("offset")).as_py()
        return File(path, table.num_rows, bounds["min"], bounds["max"])


class ArchiveRun:
    """One run over one pipeline's source topics, to their ends as they are when it comes there."""

    def __init__(self, pipeline: Pipeline, place: str, watch: Watch, *, stretch: int = STRETCH) -> None:
        """Raises ConfigError for a place that is none."""
        self._pipeline, self._watch, self._stretch = pipeline, watch, stretch
        self._archive = Archive(place)
        self._archive.check("--to")
        self._log = KafkaRange.of(pipeline, "archive")
        self._guard = Guard("archive", pipeline.error_handling)
        self._report = ArchiveReport(pipeline.pipeline_id, place)

    def run(self) -> ArchiveReport:
        """Raises OffsetOutOfRange when the log has lost records that are not archived, unless `onOutOfRange: earliest`
        accepts the gap; TopicRecreated; DependencyError."""
        options, topics = confluent_options(self._pipeline.kafka), source_topics(self._pipeline)
        counts = asyncio.run(partition_counts(options, topics))
        ids = asyncio.run(topic_ids(options, topics))
        tps = [TopicPartition(topic, number) for topic, count in sorted(counts.items()) for number in range(count)]
        bounds = self._guard.call(self._log.bounds, tps)
        planned = [(tp, one) for tp in tps for one in self._planned(tp, ids.get(tp.topic, ""), *bounds[tp])]
        offsets = sum(stretch.end - stretch.start for _, stretch in planned)
        self._watch.phase("archiving", offsets)
        few = offsets < _FEW or len(planned) == 1
        task = Guarded(Write(self._log, self._archive), self._pipeline.error_handling)
        with nullcontext(Here()) if few else Processes() as pool:
            for (tp, _), done in zip(planned, pool.map(task, self._begun(planned)), strict=True):
                self._guard.call(self._archive.finish, tp, done)
                self._report.partitions[tp].append(done)
                self._report.upto[tp] = done.end
                self._watch.advance(done.end - done.start)
        return self._report

    def _planned(self, tp: TopicPartition, topic_id: str, low: int, high: int) -> list[Stretch]:
        """Step 1: what is to be archived of a partition, in order."""
        self._report.partitions[tp] = []
        done, begun = self._guard.call(self._archive.stretches, tp)
        known = sorted([*done, *begun], key=lambda stretch: stretch.start)
        if known:
            _require_same(tp, known[-1], topic_id, self._archive.place)
        if done:
            self._report.upto[tp] = done[-1].end
        start = known[-1].end if known else low
        wanted = begun[0].start if begun else start
        if wanted < low:
            if self._pipeline.source is None or self._pipeline.source.on_out_of_range != "earliest":
                raise OffsetOutOfRange(
                    f"{tp}: the archive {self._archive.place} goes on at offset {wanted}, but the log has {low} to {high - 1}. "
                    "Records between were deleted (retention). Accept the gap with `source.onOutOfRange: earliest`, and "
                    "archive more often than retention deletes"
                )
            self._report.gaps[tp] = (wanted, low - 1)
            start = max(start, low)
        return [
            *begun,
            *(Stretch(at, min(at + self._stretch, high), topic_id) for at in range(start, high, self._stretch)),
        ]

    def _begun(self, planned: Sequence[tuple[TopicPartition, Stretch]]) -> Iterator[tuple[TopicPartition, Stretch]]:
        """Each is written down before a task has it."""
        for tp, stretch in planned:
            self._guard.call(self._archive.begin, tp, stretch)
            yield tp, stretch


def _require_same(tp: TopicPartition, last: Stretch, topic_id: str, place: str) -> None:
    if topic_id and last.topic_id and topic_id != last.topic_id:
        raise TopicRecreated(
            f"topic {tp.topic!r} was deleted and made anew: the archive {place} has offsets up to {last.end - 1} of the topic "
            f"with id {last.topic_id}, and there is one with id {topic_id} now\n"
            "  hint:     archive it to another place"
        )


def _table(tp: TopicPartition, batches: Sequence[pa.RecordBatch]) -> pa.Table:
    raw = pa.Table.from_batches(batches)
    columns = [pa.repeat(pa.scalar(tp.partition, pa.int32()), raw.num_rows)]
    columns += [raw.column(name).cast(SCHEMA.field(name).type) for name in SCHEMA.names[1:]]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _by_day(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The records of each day, by Kafka's timestamp in UTC."""
    days = pc.cast(table.column("timestamp"), pa.date32())
    for day in sorted(pc.unique(days).to_pylist()):
        yield day.isoformat(), table.filter(pc.equal(days, day))
