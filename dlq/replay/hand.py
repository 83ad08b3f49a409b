"""Editing by hand: what was masked for somebody's eyes must not come back as the value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from dlq.envelope import Envelope
from dlq.index.masking import Masker
from dlq.replay.mend import assign
from dlq.replay.outgoing import ByHand
from tidegate.errors import ConfigError


def by_hand(letter: int, original: Envelope, key: bytes | None, value: bytes | None, masker: Masker) -> ByHand:
    """The edited record of one letter (by its row in the index).

    Raises ConfigError when a field holds the mask that stands for the original's in the index: it was copied from there.
    """
    for part, before, after in (("value", original.value, value), ("key", original.key, key)):
        field = _masked(_decoded(before), _decoded(after), masker)
        if field is not None:
            raise ConfigError(
                "this is the mask of the field and not what was in it",
                field=f"{part}{field}",
                expected="the original's content, or a new one",
                hint="`tidegate dlq edit` without --value opens the raw record; --set keeps what it does not name",
            )
    return ByHand({letter: (key, value)})


def masked_text(data: bytes | None, masker: Masker) -> str | None:
    """Key or value for the eyes of somebody who may edit it and not see what is masked: JSON indented, numbers as they are
    written. None: it is null, no text, or masks cannot look into it."""
    try:
        text = None if data is None else data.decode()
    except UnicodeDecodeError:
        return None
    if data is None or text is None or not masker.changes_values:
        return text if data is None or text is None else _indented(data, text)
    try:
        for path, mask, _ in _masks(data, masker):
            data = _put(data, path, json.dumps(mask).encode())
    except (ValueError, RecursionError):
        return None
    return _indented(data, data.decode())


def unmasked(written: str, original: bytes | None, masker: Masker) -> bytes:
    """What somebody made of `masked_text`: fields that still hold their mask keep what was in them, byte for byte.

    Raises ConfigError when it is no JSON, so that nobody can tell whether it has masks.
    """
    data = written.encode("utf-8", "surrogatepass")
    if masked_text(original, masker) is None or not masker.changes_values or original is None:
        return data  # nothing was shown that could be a mask
    try:
        after = json.loads(data)
        for path, mask, before in _masks(original, masker):
            if _at(after, path) == (mask,):
                data = _put(data, path, before)
    except (ValueError, RecursionError):
        raise ConfigError(
            "this is no JSON, so that nobody can tell whether it holds masks",
            field="value",
            expected="JSON, as this pipeline masks fields",
            hint="`tidegate dlq edit` takes anything",
        ) from None
    return data


def _masks(data: bytes, masker: Masker) -> Iterator[tuple[tuple[str, ...], Any, bytes]]:
    """Where something is masked (the path of fields; lists are one thing), the mask, and what is there in truth."""
    before = json.loads(data)
    for path, mask in _differing(before, masker.value(json.loads(data), {}), ()):
        raw = msgspec.Raw(data)
        for name in path:
            raw = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])[name]
        yield path, mask, bytes(raw)


def _differing(before: Any, masked: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if before == masked and type(before) is type(masked):
        return
    if isinstance(before, dict) and isinstance(masked, dict) and before.keys() == masked.keys():
        for name in before:
            yield from _differing(before[name], masked[name], (*path, name))
    else:
        yield path, masked


def _at(value: Any, path: tuple[str, ...]) -> tuple[Any] | None:
    """What is there, if anything is."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return (value,)


def _put(data: bytes, path: tuple[str, ...], encoded: bytes) -> bytes:
    return assign(data, path, encoded) if path else encoded


def _indented(data: bytes, text: str) -> str:
    try:
        return msgspec.json.format(data, indent=2).decode()
    except (ValueError, RecursionError):
        return text


def _masked(before: Any, after: Any, masker: Masker) -> str | None:
    if before is None or after is None or not masker.changes_values:
        return None
    return _same_mask(before, masker.value(before, {}), after)


def _same_mask(before: Any, masked: Any, after: Any) -> str | None:
    """Where `after` has what the mask made of `before`; "" for the whole of it."""
    if isinstance(before, dict) and isinstance(masked, dict) and isinstance(after, dict):
        for name in masked.keys() & before.keys() & after.keys():
            if (inner := _same_mask(before[name], masked[name], after[name])) is not None:
                return f".{name}{inner}"
        return None
    if isinstance(before, list) and isinstance(masked, list) and isinstance(after, list):
        for number, parts in enumerate(zip(before, masked, after, strict=False)):
            if (inner := _same_mask(*parts)) is not None:
                return f"[{number}]{inner}"
        return None
    return "" if masked != before and after == masked else None


def _decoded(data: bytes | None) -> Any:
    try:
        return None if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return None
