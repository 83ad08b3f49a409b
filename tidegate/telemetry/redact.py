"""Secrets never reach a log: values under telling names, credentials in URLs and settings, known secrets anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from structlog.typing import EventDict, WrappedLogger

MASK = "***"

_NAMES = r"pass(?:word|wd|phrase)|secret|token|api[_-]?key|private[_-]?key|credentials?|authorization|jaas"
_TELLING_NAME = re.compile(_NAMES, re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):([^\s/]+)@")
_SETTING = re.compile(
    rf"""(?<![\w.-])(?<!unexpected\ )"""  # only at a word's start, else long text takes quadratic time
    rf"""([\w.-]*(?:{_NAMES})[\w.-]*["']?\s*[=:]\s*(?:(?:Bearer|Basic)\s+)?)"""
    r"""("[^"]*"|'[^']*'|[^\s,;&)}\]]+)""",
    re.IGNORECASE,
)

SHORTEST_SECRET = 4  # characters; masking every "a" or "1" would make logs unreadable and hide nothing


class Redact:
    """A structlog processor: masks secrets in keys, values and text, however deep they are."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """`secrets`: resolved values (of `${ENV}` and `${file:…}`) that must not appear anywhere."""
        known = sorted({secret for secret in secrets if len(secret) >= SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {key: self._field(key, value) for key, value in event.items()}

    def text(self, text: str) -> str:
        """`text` without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
        return _SETTING.sub(rf"\1{MASK}", text)

    def _field(self, name: object, value: object) -> object:
        if isinstance(name, str) and _TELLING_NAME.search(name) and value is not None and not isinstance(value, bool):
            return MASK
        return self._value(value)

    def _value(self, value: object) -> object:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self._field(name, inner) for name, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(inner) for inner in value]
        if value is None or isinstance(value, int | float):
            return value
        return self.text(str(value) if isinstance(value, BaseException) else repr(value))
