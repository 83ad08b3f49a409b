"""What a dead letter may take up, and how it is cut. A broker takes 1 048 588 bytes a record unless told otherwise.

With the default `maxValueBytes` the parts add up to less: value 900 000 + key 32 768 + the record's headers 49 152
+ reasons 16 384 + message 4 096 and stack 8 192, both twice (a dialect repeats them) = 1 022 880. The rest is for
names and context.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_KEY_BYTES = 32_768
MAX_HEADERS_BYTES = 49_152  # names and values of the record's own headers, together
MAX_REASONS_BYTES = 16_384  # as JSON
MAX_MESSAGE_BYTES = 4_096
_LONG_HEADER_BYTES = 256  # what is kept of a header that no longer fits

_CUT = "…\n"

_Header = tuple[str, bytes | None]


def cut_text(text: str, limit: int) -> str:
    """The beginning of `text` in at most `limit` bytes of UTF-8, never ending within a character."""
    if len(text) * 4 <= limit:
        return text
    data = text.encode()
    return text if len(data) <= limit else data[:limit].decode("utf-8", "ignore")


def cut_stack(stack: str, limit: int) -> str:
    """The end of `stack` in at most `limit` bytes of UTF-8: Python writes what was raised, and where, last."""
    if len(stack) * 4 <= limit:
        return stack
    data = stack.encode()
    if len(data) <= limit:
        return stack
    room = limit - len(_CUT.encode())
    if room <= 0:
        return data[-limit:].decode("utf-8", "ignore")
    return _CUT + data[-room:].decode("utf-8", "ignore")


def cut_headers(headers: Sequence[_Header]) -> tuple[_Header, ...]:
    """The headers that fit in MAX_HEADERS_BYTES, in their order; a long one in the way keeps its first 256 bytes."""
    kept: list[_Header] = []
    room = MAX_HEADERS_BYTES
    for name, value in headers:
        size = header_size(name, value)
        if size > room:
            if value is None or len(value) <= _LONG_HEADER_BYTES:
                continue
            value = value[:_LONG_HEADER_BYTES]
            size = header_size(name, value)
            if size > room:
                continue
        kept.append((name, value))
        room -= size
    return tuple(kept)


def header_size(name: str, value: bytes | None) -> int:
    """Bytes of one header, with 4 for the two lengths."""
    return len(name.encode()) + (0 if value is None else len(value)) + 4


def well_formed(text: str) -> str:
    """`text` as something UTF-8 can hold: lone surrogates (they come out of broken input) become `\\udXXX`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
