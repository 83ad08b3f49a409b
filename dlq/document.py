"""A dead letter as JSON for machines and as text for people."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import Any

from dlq.encoding import iso_utc
from dlq.reader import DeadLetter
from tidegate.stages.batch import Reason

# Whatever could move the cursor, change colours or turn the reading direction: payloads are hostile.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_LINE_BREAKS = re.compile(r"[\t\n\u2028\u2029]+")


def full_document(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as it stands in its topic, and not masked. `topic`, `partition`, `offset`, `timestamp` are the origin's."""
    envelope = letter.envelope
    return {
        "id": envelope.id,
        "pipeline": envelope.pipeline,
        "stage": envelope.stage,
        "errorType": envelope.error_type,
        "message": envelope.message,
        "fingerprint": envelope.fingerprint,
        "reasons": [_reason(reason) for reason in envelope.reasons],
        "attempt": envelope.attempt,
        "replays": envelope.replays,
        "topic": envelope.origin.topic,
        "partition": envelope.origin.partition,
        "offset": envelope.origin.offset,
        "timestamp": envelope.origin.timestamp,
        "firstFailure": moment(envelope.first_failure),
        "lastFailure": moment(envelope.last_failure),
        **encoded("key", envelope.key),
        **encoded("value", envelope.value),
        "truncated": list(envelope.truncated),
        "timestampType": envelope.origin.timestamp_type,
        "headers": [{"name": name, **encoded("value", value)} for name, value in envelope.headers],
        "schema": envelope.schema,
        "context": envelope.context,
        "trace": envelope.traceparent,
        "stack": envelope.stack,
        "valueSize": envelope.value_size if envelope.value_size is not None else len(envelope.value or b""),
        "valueSha256": envelope.value_sha256,
        "deadLetter": {
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "timestamp": letter.timestamp,
        },
    }


def safe_json(document: object, *, indent: int | None = None) -> str:
    """JSON that is harmless in a terminal: what could steer it is escaped, and means the same to a program."""
    written = json.dumps(document, ensure_ascii=False, indent=indent, default=str)
    if (
        written.isascii() and written.isprintable()
    ):  # most are: to look for what is hostile takes as long as all the rest
        return written
    written = _CONTROL.sub(lambda match: match[0] if match[0] in "\r\n" else f"\\u{ord(match[0]):04x}", written)
    return written.encode("utf-8", "backslashreplace").decode()


def moment(ms: int) -> str | None:
    """A time as ISO 8601; None for one that Kafka does not know (−1) or that no calendar has."""
    try:
        return iso_utc(ms) if ms >= 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def readable(data: bytes | None) -> str:
    """Bytes for people: indented if they are JSON, as text if they are text, else as escapes. `∅` is null."""
    if data is None:
        return "∅"
    try:
        return printable(json.dumps(json.loads(data), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return printable(data.decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """`text` with control characters as escapes; lines stay lines."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str, limit: int) -> str:
    """`text` on one line, in at most `limit` characters."""
    line = printable(_LINE_BREAKS.sub(" ", text)).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _reason(reason: Reason) -> dict[str, str]:
    parts = {
        "errorType": reason.error_type,
        "message": reason.message,
        "rule": reason.rule,
        "field": reason.field,
        "found": reason.found,
    }
    return {name: value for name, value in parts.items() if value is not None}


def encoded(name: str, data: bytes | None) -> dict[str, str | None]:
    """`name` as text with `{name}Encoding` utf-8, or base64 for what is no text; null without an encoding."""
    if data is None:
        return {name: None, f"{name}Encoding": None}
    try:
        return {name: data.decode(), f"{name}Encoding": "utf-8"}
    except UnicodeDecodeError:
        return {name: b64encode(data).decode(), f"{name}Encoding": "base64"}
