"""Dead letters out of the index: one JSON object each, or rows of a table that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any, TextIO

from dlq.document import moment, printable, safe_json
from dlq.index.search import Document

CSV_COLUMNS = (
    "id", "state", "group", "pipeline", "stage", "errorType", "message", "rules", "firstFailure", "lastFailure", "attempt",
    "replays", "source", "partition", "offset", "deadLetterTopic", "deadLetterPartition", "deadLetterOffset", "key", "value",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_LONGEST_CELL = 32_000  # characters; spreadsheets take 32 767


def exported(letter: Document) -> dict[str, Any]:
    """A letter of the index as JSON: what the console's API and `dlq search --json` give."""
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


def write_csv(letters: Iterable[dict[str, Any]], target: TextIO) -> None:
    """`exported` letters as CSV with a heading."""
    writer = csv.writer(target)
    writer.writerow(CSV_COLUMNS)
    for letter in letters:
        writer.writerow([_cell(letter[name]) for name in CSV_COLUMNS])


def _cell(value: Any) -> Any:
    """Text as it is, but what a spreadsheet would run begins with an apostrophe, and what steers a terminal is escaped."""
    if value is None or isinstance(value, int | float):
        return value
    shown = printable(value if isinstance(value, str) else safe_json(value))[:_LONGEST_CELL]
    return f"'{shown}" if shown.lstrip(" ").startswith(_FORMULA) else shown
