"""What the index holds as documents: one JSON object each (the API, `--json`), or rows of a table that no spreadsheet takes
for formulas."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from dlq.document import moment, printable, safe_json
from dlq.index.reading import Document
from dlq.replay.jobs import Job

LETTER_COLUMNS = (
    "id", "state", "group", "pipeline", "stage", "errorType", "message", "rules", "firstFailure", "lastFailure", "attempt",
    "replays", "source", "partition", "offset", "deadLetterTopic", "deadLetterPartition", "deadLetterOffset", "key", "value",
)  # fmt: skip
GROUP_COLUMNS = (
    "group", "state", "open", "count", "perHour", "stage", "errorType", "message", "firstSeen", "lastSeen", "reopened", "note",
)  # fmt: skip
JOB_COLUMNS = ("job", "state", "created", "finished", "letters", "processed", "actor", "reason", "outcomes", "request")
RESULT_COLUMNS = ("position", "id", "outcome", "detail", "again")
ENTRY_COLUMNS = ("at", "actor", "action", "group", "topic", "id", "note", "detail")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_LONGEST_CELL = 32_000  # characters; spreadsheets take 32 767


def exported(letter: Document) -> dict[str, Any]:
    """A letter of the index as JSON: what the console's API and `dlq list --json` give."""
    detail = letter["detail"] or {}
    return {
        "id": letter["id"],
        "state": letter["state"],
        "group": letter["fingerprint"],
        "dialect": letter["dialect"],
        "pipeline": letter["pipeline"],
        "stage": letter["stage"],
        "errorType": letter["error_type"],
        "message": letter["message"],
        "rules": letter["rules"].split("|")[1:-1],
        "reasons": detail.get("reasons", []),
        "firstFailure": moment(letter["first_failed"]),
        "lastFailure": moment(letter["last_failed"]),
        "attempt": letter["attempt"],
        "replays": letter["replays"],
        "replayOf": letter["replay_of"],
        "repeats": letter["repeats"],
        "schema": letter["schema_version"],
        "source": letter["origin_topic"],
        "partition": letter["origin_partition"],
        "offset": letter["origin_offset"],
        "timestamp": letter["origin_timestamp"],
        "deadLetterTopic": letter["dlq_topic"],
        "deadLetterPartition": letter["dlq_partition"],
        "deadLetterOffset": letter["dlq_offset"],
        "key": letter["key"],
        "value": letter["payload"] if letter["payload"] is not None else detail.get("text"),
        "headers": detail.get("headers", []),
    }


def group_document(row: Document) -> dict[str, Any]:
    """A group as JSON. The names of its facets are topic, source, version, pipeline and rule: value → letters."""
    return {
        "group": row["fingerprint"], "state": row["state"], "note": row["note"], "reopened": row["reopened"],
        "count": row["count"], "open": row["open"], "perHour": row["rate"], "stage": row["stage"],
        "errorType": row["error_type"], "message": row["message"], "firstSeen": moment(row["first_seen"]),
        "lastSeen": moment(row["last_seen"]), "sample": row["sample_id"], **row["facets"],
    }  # fmt: skip


def job_document(job: Job, outcomes: dict[str, int]) -> dict[str, Any]:
    """A job as JSON. `outcomes`: outcome → letters."""
    return {
        "job": job.id,
        "state": job.state,
        "reason": job.reason,
        "actor": job.actor,
        "created": moment(job.created_at),
        "finished": None if job.finished_at is None else moment(job.finished_at),
        "letters": job.total,
        "processed": job.sent,
        "followed": sum(chunk.last - chunk.first + 1 for chunk in job.chunks),
        "outcomes": outcomes,
        "request": job.request.to_json(),
        "owner": job.owner or None,
    }


def entry_document(entry: Document) -> dict[str, Any]:
    """An entry of the history as JSON."""
    return {
        "entry": entry["entry"],
        "at": moment(entry["at"]),
        "actor": entry["actor"],
        "action": entry["action"],
        "group": entry["fingerprint"],
        "topic": entry["dlq_topic"],
        "id": entry["id"],
        "note": entry["note"],
        "detail": entry["detail"],
    }


def write_csv(
    documents: Iterable[dict[str, Any]], columns: Sequence[str], target: TextIO, *, heading: bool = True
) -> None:
    """Documents as CSV."""
    writer = csv.writer(target)
    if heading:
        writer.writerow(columns)
    for document in documents:
        writer.writerow([_cell(document[name]) for name in columns])


def _cell(value: Any) -> Any:
    """Text as it is, but what a spreadsheet would run begins with an apostrophe, and what steers a terminal is escaped."""
    if value is None or isinstance(value, int | float):
        return value
    shown = printable(value if isinstance(value, str) else safe_json(value))[:_LONGEST_CELL]
    return f"'{shown}" if shown.lstrip(" ").startswith(_FORMULA) else shown
