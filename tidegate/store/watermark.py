"""The watermark of the whole pipeline: the least of its partitions' that are not idle. Said once for Python, once for SQL.

Its partitions are those of the topics in the file. The store keeps the rows of a topic that has left it, and nobody moves them.
While all are idle nothing holds a window open: every window that there is has closed, and which moment it is, nobody knows. While
a partition that is not idle has no event time, nothing is known to have closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tidegate.config.pipeline import Pipeline
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.stages.sql import literal
from tidegate.store.dialect import SqlDialect
from tidegate.store.tables import StoreTables, qualified

EVERYTHING: Final = 1 << 62
"""The watermark while all partitions are idle: all windows have closed."""


def pipeline_watermark(marks: Iterable[tuple[int | None, bool]]) -> int | None:
    """In ms; EVERYTHING; None: not known. `marks`: of each partition its watermark (None: it has no event time yet), and whether
    it is idle. A pipeline that has no partitions yet has none."""
    known = list(marks)
    awake = [watermark for watermark, idle in known if not idle]
    if not known or None in awake:
        return None
    return min((watermark for watermark in awake if watermark is not None), default=EVERYTHING)


def watermark_of(states: Iterable[PartitionState], delay: int) -> int | None:
    """The same, of what the store has. `delay` in ms."""
    return pipeline_watermark(
        (None if state.high_water is None else state.high_water - delay, state.idle) for state in states
    )


def states_read(states: Mapping[TopicPartition, PartitionState], pipeline: Pipeline) -> list[PartitionState]:
    """Those of the pipeline's own partitions."""
    return [state for tp, state in states.items() if pipeline.reads(tp.topic)]


def has_closed(end: str, tables: StoreTables, sql: SqlDialect, pipeline: Pipeline) -> str:
    """SQL for "a window that ends then has closed", of what the store has; null: not known. `end`: a window's, as SQL."""
    delay = pipeline.event_time.delay if pipeline.event_time else 0
    rows = f"FROM {qualified(tables.partitions)} WHERE pipeline = {literal(pipeline.pipeline_id)}"
    if pipeline.source is not None:
        rows += f" AND topic IN ({', '.join(map(literal, pipeline.source.topics))})"
    all_idle = f"(SELECT count(*) FILTER (WHERE NOT idle) = 0 AND count(*) > 0 {rows})"
    held = "count(*) FILTER (WHERE NOT idle AND high_water IS NULL) > 0"
    watermark = f"(SELECT CASE WHEN {held} THEN NULL ELSE min(high_water) FILTER (WHERE NOT idle) END - {delay} {rows})"
    return f"({all_idle} OR {end} <= {sql.instant(watermark)})"
