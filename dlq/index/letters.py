"""A dead letter as a row of the index: masked, cut to size, and fit for the database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from dlq import headers as h
from dlq.dialects import dialect_of, last_values
from dlq.dialects.base import text
from dlq.envelope import Envelope
from dlq.fingerprint import normalise
from dlq.index.masking import Masker
from dlq.index.tables import OPEN
from dlq.limits import cut_text, well_formed
from dlq.reader import DeadLetter
from tidegate.headers import REPLAY_OF, Headers
from tidegate.record import TopicPartition

OWN = "tidegate"
"""The dialect of our own dead letters; `none` is of those without headers."""

_MAX_VALUE_BYTES = 65_536  # a larger one is looked at in the topic
_MAX_TEXT = 2_000  # characters of a value that is no JSON, of a header and of a stack
_MAX_KEY = 512
_MAX_HEADERS = 50
_MAX_MESSAGE_BYTES = 4_096
_NUL = re.compile(r"\x00|[\ud800-\udfff]")  # PostgreSQL's text has no NUL, and no database lone surrogates
_JSON_BEGINS = frozenset(bytes([byte]) for byte in b' \t\r\n{["-0123456789tfn') | {b""}
_MOST = 2**63 - 1
_LONGEST_ID = 600  # characters: a topic has at most 249; a B-tree entry 2 700 bytes


class _Detail(msgspec.Struct, omit_defaults=True, rename="camel"):
    """The column `detail`, as JSON without what is not there."""

    reasons: list[dict[str, str | None]]
    headers: list[list[str | None]]
    stack: str | None = None
    text: str | None = None
    context: Mapping[str, Any] | None = None
    trace: str | None = None
    truncated: tuple[str, ...] | None = None
    value_size: int | None = None
    value_sha256: str | None = msgspec.field(name="valueSha256", default=None)
    timestamp_type: str | None = None


Row = dict[str, Any]
"""A row by column name (dlq/index/tables.py: COPIED); `payload` and `detail` are JSON text."""


def index_row(record: Any, tp: TopicPartition, masker: Masker) -> Row:
    """One record of a dead-letter topic (offset, timestamp, key, value, headers) as a row. Never fails."""
    headers: Headers = list(record.headers)
    values = last_values(headers)
    envelope = Envelope.from_record(
        record.key, record.value, headers, tp=tp, offset=record.offset, timestamp=record.timestamp, values=values
    )
    dialect = OWN if h.ID in values else dialect_of(values) or "none"
    letter = DeadLetter(envelope, tp.topic, tp.partition, record.offset, record.timestamp)
    return _row(letter, masker, dialect, text(values, REPLAY_OF))


def indexed_id(id: str) -> str:
    """A letter's id as the index has it."""
    return _text(id)[:_LONGEST_ID]


def indexed_fingerprint(envelope: Envelope) -> str:
    """The fingerprint as the index has it."""
    return _name(envelope.fingerprint)


def _row(letter: DeadLetter, masker: Masker, dialect: str, replay_of: str | None) -> Row:
    envelope = letter.envelope
    hidden: dict[str, str] = {}
    payload, plain = _value(envelope.value, masker, hidden)
    _, key = _value(envelope.key, masker, hidden, as_text=True)
    # What no path could look into may be quoted in its messages: only what does not vary is kept of them.
    blind = masker.by_path and envelope.value is not None and payload is None
    rules = list(dict.fromkeys(reason.rule for reason in envelope.reasons if reason.rule))
    return {
        "dlq_topic": letter.topic,
        "dlq_partition": letter.partition,
        "dlq_offset": letter.offset,
        "dlq_timestamp": letter.timestamp,
        "id": indexed_id(envelope.id),
        "dialect": dialect,
        "pipeline": _name(envelope.pipeline),
        "stage": _name(envelope.stage),
        "error_type": _name(envelope.error_type),
        "message": _message(envelope.message, masker, hidden, blind),
        "fingerprint": indexed_fingerprint(envelope),
        "rules": _text(f"|{'|'.join(rules)}|")[:1_000] if rules else "",
        "origin_topic": _name(envelope.origin.topic),
        "origin_partition": _number(envelope.origin.partition),
        "origin_offset": _number(envelope.origin.offset),
        "origin_timestamp": None if envelope.origin.timestamp is None else _number(envelope.origin.timestamp),
        "schema_version": _name(envelope.schema),
        "attempt": _number(envelope.attempt),
        "replays": _number(envelope.replays),
        "replay_of": None if replay_of is None else _text(replay_of)[:_LONGEST_ID],
        "first_failed": _number(envelope.first_failure),
        "last_failed": _number(envelope.last_failure),
        "key": None if key is None else key[:_MAX_KEY],
        "payload": payload,
        "detail": _detail(envelope, masker, hidden, blind, plain),
        "repeats": 0,
        "state": OPEN,
        "closed_at": None,
    }


def _value(
    data: bytes | None, masker: Masker, hidden: dict[str, str], *, as_text: bool = False
) -> tuple[str | None, str | None]:
    """Masked, as JSON text if it is JSON, and as text if it is not (or `as_text`): one of them, or neither."""
    if data is None or len(data) > _MAX_VALUE_BYTES:
        return None, None
    if as_text and data[:1] not in _JSON_BEGINS:  # most keys: an error raised and caught costs more than all the rest
        return None, _plain(data, masker, hidden)
    try:
        decoded = msgspec.json.decode(data)
        if masker.changes_values:
            decoded = masker.value(decoded, hidden)
        if as_text and not isinstance(decoded, dict | list):
            shown = decoded if isinstance(decoded, str) else data.decode()
            return None, _text(masker.text(shown, hidden))
        encoded = msgspec.json.encode(decoded).decode()
    except (ValueError, RecursionError, OverflowError):
        if masker.by_path and not as_text:
            return None, None
        return None, _plain(data, masker, hidden)
    encoded = encoded.replace("\\u0000", "\\ufffd") if "\\u0000" in encoded else encoded
    return (None, _text(encoded)) if as_text else (encoded, None)


def _plain(data: bytes, masker: Masker, hidden: dict[str, str]) -> str:
    return _text(masker.text(data[: 4 * _MAX_TEXT].decode("utf-8", "backslashreplace"), hidden))[:_MAX_TEXT]


def _message(message: str, masker: Masker, hidden: dict[str, str], blind: bool) -> str:
    shown = normalise(message) if blind else message
    return cut_text(_text(masker.text(shown, hidden)), _MAX_MESSAGE_BYTES)


def _detail(envelope: Envelope, masker: Masker, hidden: dict[str, str], blind: bool, plain: str | None) -> str:
    """What is shown of one letter and never searched: absent where there is nothing."""

    def shown(value: str | None) -> str | None:
        return None if value is None else _message(value, masker, hidden, blind)

    detail = _Detail(
        reasons=[
            {
                "errorType": _text(reason.error_type),
                "message": shown(reason.message),
                "rule": reason.rule,
                "field": reason.field,
                "found": None if blind else shown(reason.found),
            }
            for reason in envelope.reasons[:_MAX_HEADERS]
        ],
        headers=[
            [name, None if value is None else masker.header(name, value[:_MAX_TEXT].decode("utf-8", "replace"), hidden)]
            for name, value in envelope.headers[:_MAX_HEADERS]
        ],
        stack=None if envelope.stack is None else shown(envelope.stack[-_MAX_TEXT:]),
        text=plain,
        context=None if masker.changes_values else envelope.context,
        trace=envelope.traceparent,
        truncated=envelope.truncated or None,
        value_size=envelope.value_size or (None if envelope.value is None else len(envelope.value)),
        value_sha256=envelope.value_sha256,
        timestamp_type=envelope.origin.timestamp_type,
    )
    return msgspec.json.encode(detail).decode().replace("\\u0000", "\\ufffd")


def _text(value: str) -> str:
    return value if value.isascii() and "\x00" not in value else _NUL.sub("\ufffd", well_formed(value))


@lru_cache(maxsize=4096)  # topics, stages, errors, fingerprints: few, and on every letter
def _name(value: str) -> str:
    return _text(value)[:400]


def _number(value: int) -> int:
    """What a column holds: another tool can write any number."""
    return value if -_MOST <= value <= _MOST else (_MOST if value > 0 else -_MOST)
