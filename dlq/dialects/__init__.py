"""Header dialects: what other tools' dead letters carry, written for them and read from them."""

from __future__ import annotations

from dlq.dialects.base import Dialect, Failure, Foreign, Headers, Origin, last_values
from dlq.dialects.connect import Connect
from dlq.dialects.none import NoDialect
from dlq.dialects.spring import Spring
from dlq.dialects.streams import Streams

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (Connect(), Spring(), Streams(), NoDialect())}

DIALECT_PREFIXES: tuple[str, ...] = tuple(dialect.prefix for dialect in DIALECTS.values() if dialect.prefix)


def read_foreign(values: dict[str, bytes]) -> Foreign | None:
    """What some dialect's headers tell (`values`: the last value of each name), or None if there is no whole origin."""
    for dialect in DIALECTS.values():
        if dialect.prefix and (foreign := dialect.read(values)) is not None:
            return foreign
    return None


__all__ = [
    "DIALECTS",
    "DIALECT_PREFIXES",
    "Dialect",
    "Failure",
    "Foreign",
    "Headers",
    "Origin",
    "last_values",
    "read_foreign",
]
