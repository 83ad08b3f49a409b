"""Results as Parquet files, on disk or in S3.

append      {aggregation}/date=2026-01-31/{pipeline}-00000000000000000042.parquet   what publication 42 has of windows that start
                                                                                   on that day (UTC)
overwrite   {aggregation}/results.parquet                                          all results

A file is there whole or not at all, and a publication that is written again writes the same files again.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.publish.columns import there, typed
from batch.publish.place import folder_of, open_place
from tidegate.config.sinks import ParquetSink
from tidegate.errors import ConfigError
from tidegate.stages.plan import AggregationPlan


class ParquetTarget:
    """A sink of type `parquet`; see Target. `field`: of the sink, in the pipeline file."""

    def __init__(self, sink: ParquetSink, pipeline: str, field: str) -> None:
        """Raises ConfigError."""
        self.name, self._sink, self._pipeline, self._field = sink.name, sink, pipeline, field
        self._place = open_place(sink, field)

    def write(self, aggregation: AggregationPlan, version: int, results: pa.Table, *, complete: bool) -> None:
        """Raises LakeUnavailable, BucketUnavailable, ConfigError."""
        folder, rows = folder_of(aggregation.name), typed(aggregation, results)
        if self._sink.write_mode == "append":
            for day, part in _by_day(rows):
                self._place.write(f"{folder}/date={day}/{self._pipeline}-{version:020d}.parquet", _file(part))
        elif complete:
            self._place.write(f"{folder}/results.parquet", _file(there(rows)))
        else:
            raise ConfigError(
                "only some of the results would replace all", field=f"{self._field}.mode", value="overwrite"
            )

    def close(self) -> None:
        """Nothing is open between two writes."""


def _by_day(rows: pa.Table) -> list[tuple[str, pa.Table]]:
    days = pc.strftime(rows["window_start"], "%Y-%m-%d")
    return [(day.as_py(), rows.filter(pc.equal(days, day))) for day in pc.unique(days)]


def _file(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()
