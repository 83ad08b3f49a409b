"""Small pipelines and logs for the tests of the stages after validate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tests.reference import Record, raw_batch
from tidegate.config.pipeline import Pipeline
from tidegate.record import Stage, TopicPartition
from tidegate.stages.aggregate import finalize, merge_partials
from tidegate.stages.batch import Answers, BatchResult, PartitionState, Reason, Rejection, Seen
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import Plan, compile_plan
from tidegate.stages.sql import connect

TP = TopicPartition("flights", 0)
REPLAY = (("tidegate.replay.of", b"flights-0-1-handle"),)
COLUMNS = [
    {"name": "user", "type": "string"},
    {"name": "text", "type": "string"},
    {"name": "small", "type": "int"},
    {"name": "big", "type": "bigint"},
    {"name": "price", "type": "decimal(38,2)"},
    {"name": "ratio", "type": "double"},
    {"name": "flag", "type": "boolean"},
    {"name": "tags", "type": "array", "items": {"name": "item", "type": "string"}},
    {"name": "at", "type": "timestamp", "unit": "ms"},
]


def pipeline_of(**parts: Any) -> Pipeline:
    """A pipeline over COLUMNS with event time `at`, no delay; `parts` in the file's own names replace or add."""
    document = {
        "pipelineId": "building",
        "source": {"topics": ["flights"]},
        "schema": COLUMNS,
        "eventTime": {"column": "at"},
    }
    return Pipeline.model_validate(document | parts)


def counting(measures: Mapping[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    """One aggregation, `per_second`, with one-second windows."""
    return {"name": "per_second", "window": {"size": "1 second"}, "measures": measures or {"n": "count"}} | parts


def stages_of(**parts: Any) -> StagePipeline:
    return StagePipeline(compile_plan(pipeline_of(**parts)))


def plan_of(**parts: Any) -> Plan:
    return compile_plan(pipeline_of(**parts))


def log(*rows: Mapping[str, Any] | int, start: int = 0, timestamp: int = 0) -> list[Record]:
    """Records with offsets from `start`; an int stands for a row with that event time; `_replay: True` makes a
    replay.
    """
    records = []
    for offset, row in enumerate(rows, start):
        fields = {"at": row} if isinstance(row, int) else dict(row)
        headers = REPLAY if fields.pop("_replay", False) else ()
        records.append(Record(offset, timestamp, json.dumps(fields).encode(), headers))
    return records


def run(
    stages: StagePipeline,
    records: Sequence[Record],
    state: PartitionState | None = None,
    seen: Seen | None = None,
    known: Answers | None = None,
) -> BatchResult:
    return stages.run(raw_batch(TP, records), state or PartitionState(), seen, known)


def refused(*offsets: int, after: int = -1, upto: int = 2**62) -> Answers:
    """What a sink has refused of the records in a stretch."""
    return Answers(
        after, upto, rejected={offset: Rejection(offset, Stage.SINK, (Reason("Refused", "no"),)) for offset in offsets}
    )


def result_rows(plan: Plan, *tables: pa.Table) -> list[dict[str, Any]]:
    """The finished results of the first aggregation, by window and group."""
    con = connect()
    try:
        rows: list[dict[str, Any]] = finalize(
            plan.aggregations[0], merge_partials(plan.aggregations[0], tables, con), con
        ).to_pylist()
    finally:
        con.close()
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])


NOTED: list[Any] = []


def noted(row: dict[str, Any]) -> dict[str, Any]:
    """A handler that notes the text of each record."""
    NOTED.append(row["text"])
    return row


def judging(row: dict[str, Any]) -> dict[str, Any] | None:
    """A handler that drops, refuses or changes a record, as its text says."""
    if row["text"] == "drop":
        return None
    if row["text"] == "refuse":
        raise ValueError("refused")
    return row | {"small": 42}
