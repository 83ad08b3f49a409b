"""The secrets of a configuration, for masking them in logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, SecretStr


def secret_values(part: object) -> frozenset[str]:
    """Every SecretStr in a tree of models, resolved; of a URL its password too, as it stands and decoded."""
    return frozenset(form for secret in _secrets(part) for form in _forms(secret) if form)


def _secrets(part: object) -> Iterator[str]:
    if isinstance(part, SecretStr):
        yield part.get_secret_value()
    elif isinstance(part, BaseModel):
        for name in type(part).model_fields:
            yield from _secrets(getattr(part, name))
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _secrets(value)
    elif isinstance(part, list | tuple | set | frozenset):
        for value in part:
            yield from _secrets(value)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    try:
        url = urlsplit(secret)
    except ValueError:  # it only looked like a URL
        return
    if url.password is not None:
        yield url.password
        yield unquote(url.password)
    if url.scheme:
        yield from dict(parse_qsl(url.query)).get("password", "").splitlines()
