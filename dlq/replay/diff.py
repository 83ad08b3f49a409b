"""What a mended record is other than it was, masked as the index is: previews are shown to whoever may replay."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from dlq.index.masking import Masker
from dlq.replay.mend import Record
from dlq.replay.outgoing import Outgoing

_SHOWN = 2_000  # characters of a value


@dataclass(frozen=True, slots=True)
class Diff:
    """One mended letter, masked: field → (before, after), as JSON; `key` and `value` for the whole of them."""

    id: str
    fields: dict[str, tuple[str | None, str | None]]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"id": self.id, "fields": {n: {"before": b, "after": a} for n, (b, a) in self.fields.items()}}


def masked_message(record: Outgoing, message: str, masker: Masker) -> str:
    """A message may quote what is masked; what no path can look into may be quoted, too."""
    hidden: dict[str, str] = {}
    try:
        masker.value(msgspec.json.decode(record.value or b"null"), hidden)
    except (ValueError, RecursionError):
        return "" if masker.by_path else masker.text(message, hidden)
    return masker.text(message, hidden)


def diff_of(record: Outgoing, masker: Masker) -> Diff:
    before = _fields((record.original.key, record.original.value), masker)
    after = _fields((record.key, record.value), masker)
    names = dict.fromkeys([*before, *after])
    return Diff(record.chosen.id, {n: (before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)})


def _fields(record: Record, masker: Masker) -> dict[str, str]:
    """`key`, and each field of the value as `value.name`; the whole as `value` when it is no JSON object."""
    hidden: dict[str, str] = {}
    shown: dict[str, str] = {}
    key, value = record
    try:
        decoded = masker.value(json.loads(value or b"null"), hidden)
    except (ValueError, RecursionError):
        text = (
            "(cannot be masked)"
            if masker.by_path
            else masker.text((value or b"").decode("utf-8", "backslashreplace"), hidden)
        )
        shown["value"] = text[:_SHOWN]
    else:
        if isinstance(decoded, dict):
            shown |= {
                f"value.{name}": json.dumps(field, ensure_ascii=False)[:_SHOWN] for name, field in decoded.items()
            }
        elif value is not None:
            shown["value"] = json.dumps(decoded, ensure_ascii=False)[:_SHOWN]
    if key is not None:
        shown["key"] = masker.text(key.decode("utf-8", "backslashreplace"), hidden)[:_SHOWN]
    return shown
