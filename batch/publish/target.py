"""What a sink beside the store is."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from tidegate.stages.plan import AggregationPlan


class Target(Protocol):
    """One sink that follows the store. Not for use by two threads at once.

    `name`: the sink's name in logs, metrics and the store's rows, different from any other sink's of the pipeline.
    """

    name: str

    def write(self, aggregation: AggregationPlan, version: int, results: pa.Table, *, complete: bool) -> None:
        """Write one aggregation's newest results, and return once they cannot be lost any more.

        `results`: one row per window and group, over all source partitions: `window_start`, `window_end` (ms, int64), the
        group's columns, the finished measures, `records`, `revision` (int64), `upto` (JSON text: source partition → offset),
        `final` (bool). The larger revision of a window and group is the newer one; the same revision comes again when its window
        has closed since. There is at least one row, and each window and group once. A row with no `records`, whose measures are
        null, is of a result that a promotion has taken away.
        `version`: grows with each publication of this sink; one call per version and aggregation, but for repeats. A repeat after
        a crash comes with the same version and the same windows and groups. Where such a result has changed meanwhile it
        is the newer one, and comes once more under the next version; so a version that the sink has may be left out.
        `complete`: the rows are all results that there are (and what was taken away), else those that changed.

        Raises DependencyError (tried again, with the same rows), SinkRecordError.
        """

    def close(self) -> None: ...
