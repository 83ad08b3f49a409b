"""Masking: what the pipeline's owner says the index must not hold is taken out before anything is written to it.

By path, header or regular expression. What a masked field held is also taken out of messages, reasons and stacks, where
an error may have quoted it. A value that a path cannot be applied to, because it is no JSON, is not kept at all while
there are paths, and its messages keep only what does not vary (dlq/fingerprint.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tidegate.config.deadletters import Mask

_SHORTEST_QUOTED = 3  # characters: "1" taken out of every message would leave none readable


class Masker:
    """The masks of one pipeline. Immutable; safe under threads."""

    def __init__(self, masks: Sequence[Mask]) -> None:
        self._paths = [(tuple(_steps(mask.path)), mask.replacement) for mask in masks if mask.path is not None]
        self._headers = {mask.header.lower(): mask.replacement for mask in masks if mask.header is not None}
        self._regexes = [(re.compile(mask.regex), mask.replacement) for mask in masks if mask.regex is not None]

    @property
    def by_path(self) -> bool:
        """Whether there is a path: then what cannot be looked into is not kept."""
        return bool(self._paths)

    @property
    def changes_values(self) -> bool:
        """Whether a value has to be looked into at all."""
        return bool(self._paths or self._regexes)

    def value(self, decoded: Any, hidden: dict[str, str]) -> Any:
        """A decoded value, masked in place as far as it can be. Texts that were masked are added to `hidden`."""
        for steps, replacement in self._paths:
            decoded = _mask(decoded, steps, replacement, hidden)
        return self._walk(decoded) if self._regexes else decoded

    def text(self, text: str, hidden: dict[str, str]) -> str:
        """A message, stack or key without what is to be hidden. `hidden`: text → its replacement, from `value`."""
        if not hidden and not self._regexes:
            return text
        for secret in sorted(hidden, key=len, reverse=True):
            text = text.replace(secret, hidden[secret])
        for regex, replacement in self._regexes:
            text = regex.sub(lambda _match, replacement=replacement: replacement, text)  # type: ignore[misc]  # a lambda's default argument has no type
        return text

    def header(self, name: str, text: str, hidden: dict[str, str]) -> str:
        replacement = self._headers.get(name.lower())
        return self.text(text, hidden) if replacement is None else replacement

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value, {})
        if isinstance(value, dict):
            return {self.text(name, {}): self._walk(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):  # a card number may be a number
            shown = str(value)
            masked = self.text(shown, {})
            return value if masked == shown else masked
        return value


def _steps(path: str) -> Iterable[str]:
    """`items[].price` as items, [], price."""
    for name in path.split("."):
        bare = name.rstrip("[]")
        if bare:
            yield bare
        yield from ("[]",) * name.count("[]")


def _mask(value: Any, steps: tuple[str, ...], replacement: str, hidden: dict[str, str]) -> Any:
    if not steps:
        _hide(value, replacement, hidden)
        return replacement
    if isinstance(value, list):  # with or without the brackets: a path must not miss what it means
        rest = steps[1:] if steps[0] == "[]" else steps
        return [_mask(item, rest, replacement, hidden) for item in value]
    if isinstance(value, dict) and steps[0] in value:
        return {**value, steps[0]: _mask(value[steps[0]], steps[1:], replacement, hidden)}
    return value


def _hide(value: Any, replacement: str, hidden: dict[str, str]) -> None:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _hide(item, replacement, hidden)
    elif value is not None and not isinstance(value, bool) and len(shown := str(value)) >= _SHORTEST_QUOTED:
        hidden[shown] = replacement
