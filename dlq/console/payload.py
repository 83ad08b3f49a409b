"""Payloads for people: pretty, raw, hex. Everything here is hostile until it is escaped, which `Markup` and Jinja do."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from dlq.document import printable

_MOST_TEXT = 200_000  # characters
_MOST_HEX = 16_384  # bytes
# A string that was cut has no end: it goes to the end of the text, or every quote in it would be tried to the end in vain.
_TOKEN = re.compile(
    r'("(?:\\.|[^"\\])*(?:"|\\?\Z))(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)', re.DOTALL
)


class Shown(NamedTuple):
    """`cut`: what is said when it is not all of it."""

    text: Markup
    cut: str = ""


def pretty(value: Any) -> Shown:
    """A decoded value as indented, coloured JSON; text as it is."""
    if isinstance(value, str):
        return raw(value)
    try:
        written = printable(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    except (RecursionError, ValueError):
        return raw(compact(value))
    return _cut(written, coloured=True)


def pretty_bytes(data: bytes | None) -> Shown:
    """Bytes: as JSON if they are, else as text."""
    if data is None:
        return Shown(Markup("∅"), "null: there is no value")
    try:
        return pretty(json.loads(data))
    except (ValueError, RecursionError):
        return raw(data.decode("utf-8", "backslashreplace"))


def raw(text: str) -> Shown:
    """Text as it is, but for what could steer a terminal or turn the reading direction."""
    return _cut(printable(text), coloured=False)


def compact(value: Any) -> str:
    """JSON that is too deep to be indented."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        return "(nested too deeply to be shown)"


def hexadecimal(data: bytes | None) -> Shown:
    """Offset, sixteen bytes, and their ASCII."""
    if data is None:
        return Shown(Markup("∅"), "null: there is no value")
    lines = []
    for start in range(0, min(len(data), _MOST_HEX), 16):
        part = data[start : start + 16]
        left, right = part[:8].hex(" "), part[8:].hex(" ")
        ascii_ = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in part)
        lines.append(f"{start:08x}  {left:<23}  {right:<23}  {ascii_}")
    cut = f"the first {_MOST_HEX} of {len(data)} bytes" if len(data) > _MOST_HEX else ""
    return Shown(escape("\n".join(lines)), cut)


def _cut(text: str, *, coloured: bool) -> Shown:
    cut = f"the first {_MOST_TEXT} of {len(text)} characters" if len(text) > _MOST_TEXT else ""
    text = text[:_MOST_TEXT]
    return Shown(_coloured(text) if coloured else escape(text), cut)


def _coloured(text: str) -> Markup:
    parts: list[Markup] = []
    at = 0
    for match in _TOKEN.finditer(text):
        parts.append(escape(text[at : match.start()]))
        string, colon, word, number = match.groups()
        kind = "key" if colon else "string" if string else "word" if word else "number"
        parts.append(Markup('<span class="json-{}">{}</span>{}').format(kind, string or word or number, colon or ""))
        at = match.end()
    return Markup("").join([*parts, escape(text[at:])])
