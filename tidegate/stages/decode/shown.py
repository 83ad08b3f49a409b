"""How a value found in a record is shown: short, on one line, printable."""

from __future__ import annotations

MAX_SHOWN = 120  # characters; the whole value travels in the dead letter
_BYTES = (bytes, bytearray, memoryview)


def shown(found: object) -> str:
    """At most 120 printable characters of what was there; bytes that are no UTF-8 appear as escapes."""
    if isinstance(found, float):
        return str(found)  # always short and printable
    if isinstance(found, _BYTES):
        text = bytes(found[: MAX_SHOWN * 4]).decode("utf-8", "backslashreplace")
        cut = len(found) > MAX_SHOWN * 4
    else:
        text, cut = str(found), False
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: MAX_SHOWN + 1])
    return text if len(text) <= MAX_SHOWN and not cut else text[: MAX_SHOWN - 1] + "…"
