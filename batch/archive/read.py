"""The log again: from an archive as far as it goes, from Kafka behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from batch.archive.layout import SCHEMA, Archive, Stretch
from batch.backfill.ranges import LogRange
from batch.backfill.splits import Split
from tidegate.errors import ConfigError
from tidegate.record import TopicPartition
from tidegate.stages.batch import RAW_SCHEMA, RawBatch


@dataclass(frozen=True, slots=True)
class ArchivedLog:
    """`kafka`: what has come since the archive was written. `known`: per partition the stretches that are done, read once."""

    archive: Archive
    kafka: LogRange
    known: dict[TopicPartition, list[Stretch]] = field(default_factory=dict)

    def bounds(self, tps: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """Raises ConfigError when the archive has nothing of any of them, or when Kafka no longer has what follows on it."""
        here, found = self.kafka.bounds(tps), {}
        for tp in tps:
            self.known[tp] = _unbroken(self.archive.stretches(tp)[0])
        if tps and not any(self.known.values()):
            raise ConfigError(
                "this archive has nothing of the pipeline's topics",
                field="--source",
                value=self.archive.place,
                hint="tidegate batch archive PIPELINE --to …",
            )
        for tp in tps:
            stretches = self.known[tp]
            if tp not in here:
                if stretches:
                    found[tp] = stretches[0].start, stretches[-1].end
                continue
            low, high = here[tp]
            if stretches and stretches[-1].end < low:
                raise ConfigError(
                    f"{tp}: between the archive, which ends before offset {stretches[-1].end}, and the log, which begins at "
                    f"{low}, records are lost",
                    field="--source",
                    value=self.archive.place,
                )
            found[tp] = (stretches[0].start if stretches else low, max(high, stretches[-1].end if stretches else 0))
        return found

    def read(self, split: Split, most: int) -> Iterator[RawBatch]:
        """In offset order, whatever the days of the records."""
        at = split.start
        for stretch in self.known[split.tp]:
            if stretch.end <= at or stretch.start >= split.end:
                continue
            for batch in self._records(stretch, at, split.end).to_batches(max_chunksize=most):
                yield RawBatch(split.tp, batch)
            at = min(stretch.end, split.end)
        if at < split.end:
            yield from self.kafka.read(Split(split.tp, at, split.end), most)

    def _records(self, stretch: Stretch, start: int, end: int) -> pa.Table:
        wanted = [file for file in stretch.files if file.last >= start and file.first < end]
        tables = [self._table(file.path, start, end) for file in wanted]
        table = pa.concat_tables(tables).sort_by("offset").combine_chunks() if tables else SCHEMA.empty_table()
        columns = [table.column(name).cast(RAW_SCHEMA.field(name).type) for name in RAW_SCHEMA.names]
        return pa.Table.from_arrays(columns, schema=RAW_SCHEMA)

    def _table(self, path: str, start: int, end: int) -> pa.Table:
        with self.archive.open(path) as file:
            return pq.read_table(file, filters=[("offset", ">=", start), ("offset", "<", end)])


def _unbroken(stretches: list[Stretch]) -> list[Stretch]:
    """The last ones that follow on each other: before a gap, nothing can be judged."""
    first = 0
    for index in range(1, len(stretches)):
        if stretches[index].start != stretches[index - 1].end:
            first = index
    return stretches[first:]
