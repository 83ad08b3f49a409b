"""Late records, by the pipeline's strategy: to the late topic, to the dead letters, to the log, or nowhere.

The late table counts them whatever the strategy: what is missing in which window is never lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import structlog

from dlq import headers as h
from dlq.collect import milliseconds, pick, schema_name
from dlq.kind import Kinds
from dlq.letter import Letter, RawRecord
from dlq.placement import target_partition
from tidegate.clock import Clock
from tidegate.config.topics import late_topic
from tidegate.headers import Headers
from tidegate.record import OutRow, Stage, record_id
from tidegate.stages.batch import BatchResult, LateRecord, MissedWindow, Reason, Rejection
from tidegate.stages.plan import Plan

ERROR_TYPE = "LateRecord"

# A record can miss 86 400 hopping windows (a day long, one a second). Their header would not fit into any record.
MAX_WINDOWS = 32

log = structlog.get_logger()


class Late(NamedTuple):
    """What to write for a batch's late records: rows of the late topic, or dead letters, or nothing if dropped."""

    rows: list[OutRow]
    letters: list[Letter]


def late_records(result: BatchResult, plan: Plan, clock: Clock, *, partitions: int) -> Late:
    """What becomes of `result.late`. `partitions`: how many the late topic has.

    `separateStream` gives rows, `sendToDLQ` letters; `logAndDrop` logs one `late.dropped` for the whole batch.
    """
    late = result.late
    if not late or plan.pipeline.late_data.strategy == "drop":
        return Late([], [])
    if plan.pipeline.late_data.strategy == "logAndDrop":
        _log_dropped(result, plan)
        return Late([], [])
    records = pick(result.raw, [record.offset for record in late])
    now_ms = milliseconds(clock)
    topic = late_topic(plan.pipeline)
    if topic is None:  # sendToDLQ
        return Late([], _as_dead_letters(late, records, plan, now_ms))
    rows = [_row(lateness, record, topic, partitions, now_ms) for lateness, record in zip(late, records, strict=True)]
    return Late(rows, [])


def late_id(late: LateRecord, record: RawRecord) -> str:
    """The record's id. A partial one has its place in the ledger elsewhere, so its id names the stage as well."""
    return record_id(record.tp, late.offset, Stage.EVENT_TIME if late.partial else None)


def _row(late: LateRecord, record: RawRecord, topic: str, partitions: int, now_ms: int) -> OutRow:
    """The record as it was, with `tidegate.late.*`. Its Kafka timestamp is now: retention counts from here."""
    headers: Headers = [header for header in record.headers if not header[0].startswith(h.LATE_PREFIX)]
    headers += [
        (h.LATE_ID, late_id(late, record).encode()),
        (h.LATE_EVENT_TIME, b"%d" % late.event_time),
        (h.LATE_WATERMARK, b"%d" % late.watermark),
        (h.LATE_WINDOWS, msgspec.json.encode(_windows(late.missed))),
        (h.LATE_WINDOWS_COUNT, b"%d" % len(late.missed)),
        (h.LATE_PARTIAL, b"true" if late.partial else b"false"),
        (h.LATE_TIMESTAMP, b"%d" % record.timestamp),
    ]
    partition = target_partition(record.tp, record.key, partitions)
    return OutRow(topic, partition, record.key, record.value, headers, now_ms)


def _as_dead_letters(late: Sequence[LateRecord], records: Sequence[RawRecord], plan: Plan, now_ms: int) -> list[Letter]:
    pipeline, schema = plan.pipeline.pipeline_id, schema_name(plan.pipeline)
    column = None if plan.pipeline.event_time is None else plan.pipeline.event_time.column
    return [
        Letter.of(
            Rejection(lateness.offset, Stage.EVENT_TIME, (_reason(lateness, column),)),
            record,
            Kinds(pipeline=pipeline, schema=schema, now_ms=now_ms, context=_context(lateness)),
            id=late_id(lateness, record),
        )
        for lateness, record in zip(late, records, strict=True)
    ]


def _reason(late: LateRecord, column: str | None) -> Reason:
    behind = late.watermark - late.event_time
    message = f"event time {late.event_time} is {behind} ms behind the watermark {late.watermark}; closed windows: "
    return Reason(ERROR_TYPE, f"{message}{len(late.missed)}", field=column, found=str(late.event_time))


def _context(late: LateRecord) -> dict[str, object]:
    return {
        "eventTime": late.event_time,
        "watermark": late.watermark,
        "windows": _windows(late.missed),
        "windowsCount": len(late.missed),
        "partial": late.partial,
    }


def _windows(missed: Sequence[MissedWindow]) -> list[dict[str, object]]:
    """The first MAX_WINDOWS of them, as JSON has them."""
    return [{"aggregation": w.aggregation, "start": w.start, "end": w.end} for w in missed[:MAX_WINDOWS]]


def _log_dropped(result: BatchResult, plan: Plan) -> None:
    """One event for the batch: a thousand late records are one line, not a thousand."""
    late = result.late
    log.warning(
        "late.dropped",
        pipeline=plan.pipeline.pipeline_id,
        topic=result.raw.tp.topic,
        partition=result.raw.tp.partition,
        records=sum(not record.partial for record in late),
        partial=sum(record.partial for record in late),
        first_offset=min(record.offset for record in late),
        last_offset=max(record.offset for record in late),
        latest_by_ms=max(record.watermark - record.event_time for record in late),
    )
