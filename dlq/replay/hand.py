"""Editing by hand: what was masked for somebody's eyes must not come back as the value."""

from __future__ import annotations

import json
from typing import Any

from dlq.envelope import Envelope
from dlq.index.masking import Masker
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
